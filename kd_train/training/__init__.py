"""Training runs: teachers, banks of students, and the study as a whole."""
