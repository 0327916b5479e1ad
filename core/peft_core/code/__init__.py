"""The source files below a folder: which there are, in which language, how each is built, and what it says of others.

Shared by what completes code (chunks of other files in a prompt) and what learns from it (the same in an example), so
that a model meets when it serves what it met when it was tuned.
"""
