"""The study file, its plan, and the logs of its scores."""
