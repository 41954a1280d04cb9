"""Transformers models: their texts, hidden states, checkpoints and towers."""
