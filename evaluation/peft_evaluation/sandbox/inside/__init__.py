"""What runs within a sandbox, in a bare interpreter: the standard library and these files, nothing else."""
