"""Batches: their order, their cut into micro-batches, and the model inputs made of them."""
