"""``peft-daemon lsp``: the language server, on standard input and output.

The server itself is ``peft_lsp``. The command line's library is imported only for ``register``: editors wait for
``serve``, and the library takes longer to load than the server takes to answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typer import Typer

LogLevel = Literal["debug", "info", "warning", "error"]


def register(app: Typer) -> None:
    """Add the command."""
    from typer import Exit, Option

    @app.command()
    def lsp(
        log_level: LogLevel = Option("warning", help="Level of detail of the log on standard error."),
        _stdio: bool = Option(False, "--stdio", hidden=True),  # many editors append it
    ) -> None:
        """Serve an editor: the language server on standard input and output.

        Editors start it themselves; docs/editors.md shows how.

        \b
        Example (Neovim):
          vim.lsp.config("peft_daemon", { cmd = { "peft-daemon", "lsp" } })
        """
        raise Exit(serve(log_level))


def serve(log_level: LogLevel = "warning") -> int:
    """Serve one editor until it disconnects; returns the exit code."""
    from peft_lsp.transport import serve_stdio

    return serve_stdio(log_level)
