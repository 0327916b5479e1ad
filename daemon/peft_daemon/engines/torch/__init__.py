"""The torch engine: its child process, and how models, tokenizers and adapters are loaded there and for tuning."""
