"""The plainest policy: after each keystroke the text before and after the cursor goes to ``/infill``."""

from __future__ import annotations

from collections.abc import Callable

from peft_evaluation.typing.policies.base import Answer, Engine, Totals, View
from peft_evaluation.typing.policies.llama_server import LlamaServer
from peft_evaluation.typing.screen import Ghost
from peft_evaluation.typing.traces import Edit

PREDICT_TOKENS = 64
SEED = 0


class InfillSession:
    """One editor session without any logic of its own."""

    def __init__(self, engine: Engine) -> None:
        self.on_more: Callable[[], None] | None = None
        self._server = LlamaServer(engine)

    async def start(self) -> None:
        """Start the server."""
        await self._server.start()

    async def stop(self) -> None:
        """End it."""
        await self._server.stop()

    def opened(self, view: View) -> None:
        """The request sends the text itself."""

    def shown(self, view: View, before: View) -> None:
        """The request sends the text itself."""

    def changed(self, view: View, edit: Edit, before: View) -> None:
        """The request sends the text itself."""

    def moved(self, view: View) -> None:
        """It takes no notice."""

    def saved(self, view: View) -> None:
        """It takes no notice."""

    async def suggest(self, view: View) -> Answer:
        """One request; a keystroke meanwhile closes the connection, at which the server stops."""
        body = {
            "input_prefix": view.text[: view.cursor],
            "input_suffix": view.text[view.cursor :],
            "n_predict": PREDICT_TOKENS,
            "temperature": 0.0,
            "seed": SEED,
            "stream": False,
        }
        text = await self._server.post("/infill", body)
        return Answer(Ghost(view.cursor, view.cursor, text) if text.strip() else None, cached=False)

    async def totals(self) -> Totals:
        """The server's."""
        return await self._server.totals()
