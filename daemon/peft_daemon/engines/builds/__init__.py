"""Builds of llama.cpp that are compiled on this machine, for its processor and its graphics card."""
