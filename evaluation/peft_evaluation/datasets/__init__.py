"""The items of each data set, one module per kind of source."""
