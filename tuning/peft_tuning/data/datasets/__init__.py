"""The data sets that can be tuned on: one module each, listed in ``catalogue``.

Reads from left to right: ``sources`` finds the files (``hub`` fetches them), ``rows`` reads them and checks their
fields, one module per data set makes examples of them, ``splits`` keeps its parts apart.
"""
