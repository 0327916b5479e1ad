"""Data to tune on: examples, named data sets, and the code of a repository."""
