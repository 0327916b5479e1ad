"""CodeBLEU (Ren et al. 2020, arXiv 2009.10297) of one Python answer.

It gives the results of the package ``codebleu`` 0.7.0, which cannot be installed together with a current tree-sitter;
tests compare with its results for a set of examples. Its peculiarities are kept, and comments name them. Other
languages, several references and scores of a corpus are not supported. Results may differ for code (mostly invalid)
that the package's older grammar parses differently.
"""
