"""Data: tables of texts, labels and numbers, and packaged models and data sets."""
