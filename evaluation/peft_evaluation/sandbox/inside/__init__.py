"""The modules that run inside a sandbox; the interpreter there has only the standard library and these files."""
