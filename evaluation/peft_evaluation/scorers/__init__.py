"""Scores of single outputs, and the metrics that they are made of."""
