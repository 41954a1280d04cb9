"""The outcome of a study: scores, angles, and verdicts."""
