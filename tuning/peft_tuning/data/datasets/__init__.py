"""Data sets that can be tuned on: one module each, listed in ``catalogue``.

``sources`` finds or fetches the files, ``rows`` reads them and checks their fields, and the module of each data set
makes examples of them. ``data.examples`` keeps the parts apart.
"""
