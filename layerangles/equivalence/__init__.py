"""Does the choice of layers matter? The statistics of the claim, from scores alone."""
