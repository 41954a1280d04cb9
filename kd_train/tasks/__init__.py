"""The tasks: what a study's data are, how a model is called on them, and how its outputs are scored."""
