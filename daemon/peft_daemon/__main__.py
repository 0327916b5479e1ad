"""``python -m peft_daemon``: the same as the console script, whichever Python runs it."""

from peft_cli import main

main()
