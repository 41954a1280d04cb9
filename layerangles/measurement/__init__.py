"""Measurements: models and texts, or arrays of states, become an AngleResult."""
