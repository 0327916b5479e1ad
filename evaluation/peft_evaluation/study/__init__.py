"""Studies: a matrix of models, data sets, strategies, methods and seeds, tuned and evaluated, in one report."""
