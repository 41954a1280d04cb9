"""A study as jobs, run by local processes or by Slurm."""
