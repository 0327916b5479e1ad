"""Source code: the files of a folder, their languages, structure and imports, and positions in a text.

Completion and tuning share it, so that prompts contain the same kind of code from other files as training examples.
"""
