"""Columns of texts, labels and numbers: from files, the hub, and packages."""
