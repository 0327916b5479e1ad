"""How well next edits are suggested: moments of real histories, with an answer and without one."""
