"""Scoring: metrics of references and answers, and the models that answer."""
