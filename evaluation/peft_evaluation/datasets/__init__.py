"""The loaders of the data sets that can be evaluated on, one module per kind of source."""
