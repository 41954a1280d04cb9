"""Training runs: the bank of students behind one teacher pass."""
