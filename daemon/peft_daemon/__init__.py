"""The daemon: serves completions to editors, the command line and other clients."""
