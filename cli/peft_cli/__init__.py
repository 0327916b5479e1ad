"""The ``peft-daemon`` command: one module per group of verbs; what a verb needs is loaded when it is called.

Exit codes (also in docs/cli.md): 0 done; 1 unexpected; 2 bad input; 3 not found; 4 not allowed; 5 conflict;
6 not ready or no daemon; 7 the engine failed; 8 a download failed; 9 disk full;
10 training diverged; 11 out of memory; 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script."""
    from peft_core.processes import distrust_working_folder

    distrust_working_folder()
    if sys.argv[1:] in (["lsp"], ["lsp", "--stdio"]):
        # Editors wait for this command, so the library of the other commands is not loaded.
        from peft_cli.lsp import serve

        try:
            sys.exit(serve())
        except Exception as error:
            from peft_cli.output import expected, report

            sys.exit(report(expected(error), as_json=False))
    from peft_cli.app import application, parts_of
    from peft_cli.output import escape_unprintable_output, expected, report
    from peft_cli.terminal import protect_terminal
    from peft_core.errors import Cancelled

    escape_unprintable_output()
    protect_terminal()
    try:
        application(parts_of(sys.argv[1:]))(prog_name="peft-daemon")
    except Exception as error:
        sys.exit(report(expected(error), as_json="--json" in sys.argv))
    except KeyboardInterrupt:
        sys.exit(report(Cancelled("interrupted"), as_json="--json" in sys.argv))
