"""Tuning: adapters for the served model, made from a data set or from the user's own repository.

Reads from left to right: ``datasets`` and ``repository`` give ``examples``; ``encoding`` writes them in the served
prompt formats; ``methods`` put trainable weights on a ``base_model``; ``training`` fits them; ``packaging`` hands the
result to the adapter registry. Nothing here is imported by the daemon, except lazily by its command line.
"""
