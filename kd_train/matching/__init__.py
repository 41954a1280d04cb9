"""Layer matching: strategies, assignments, losses, controls and targets."""
