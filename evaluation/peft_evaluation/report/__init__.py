"""A report as files: JSON first, everything else from it."""
