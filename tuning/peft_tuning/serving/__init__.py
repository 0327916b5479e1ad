"""The torch engine's child process: a base model in memory, adapters that come and go, and the decoding loop."""
