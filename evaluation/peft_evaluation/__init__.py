"""Evaluation: measure strategies (adapters, examples, context) under equal conditions, compare and report them."""
