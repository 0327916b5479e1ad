"""The llama.cpp engine: its child process, the server in it, and the saved states of its slots."""
