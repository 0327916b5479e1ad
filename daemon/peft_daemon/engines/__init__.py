"""Engines: what turns a prompt into tokens. ``base`` is the interface, one module per engine."""
