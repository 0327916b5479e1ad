"""Learning in the background: which repository is due, when the machine is free, and the run as a child process."""
