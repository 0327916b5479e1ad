"""The systems under test: this product, and others re-created from their sources, on the same engine."""
