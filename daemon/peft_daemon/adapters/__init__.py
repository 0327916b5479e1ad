"""Adapters: stored files with a content digest, names that point at digests, and which one serves what.

Importing this package is cheap: numpy, gguf and safetensors are loaded only by the functions that need them.
"""
