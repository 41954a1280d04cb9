"""Tasks: their data, their batches, and the scores of a model's answers."""
