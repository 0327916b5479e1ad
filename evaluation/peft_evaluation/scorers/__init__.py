"""The metrics, and the scores of single outputs."""
