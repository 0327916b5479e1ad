"""Adapters: immutable, named by what they contain; names that point at them; which one serves which task.

Importing this package stays light: numpy, gguf and safetensors are loaded only by the functions that need them.
"""
