"""``python -m peft_daemon``: the same as the console script, whichever Python runs it."""

from peft_daemon.cli import main

main()
