"""GGUF files: header, vocabulary, export."""
