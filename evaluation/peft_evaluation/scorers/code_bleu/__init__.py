"""CodeBLEU (Ren et al. 2020, arXiv 2009.10297) of one Python answer, agreeing with the package ``codebleu`` 0.7.0.

That package cannot be installed beside a current tree-sitter; what it computes is fixed by a parity set in the tests.
Its peculiarities are kept, and named where they are. Does not cover other languages, several references, a score of a
whole corpus, nor the older grammar it is used with: code that is read in another way there, mostly broken, differs.
"""
