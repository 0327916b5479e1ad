"""No sandbox: a process of the user's own with limits on time, memory and file sizes alone. Only on request."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from peft_evaluation.sandbox.base import INSIDE, PACKAGE, Launch, Limits, start


class Unconfined:
    """See ``base.Sandbox``; reaches everything that the user can."""

    name = "none"

    def launch(self, script: str, arguments: Sequence[str], limits: Limits) -> Launch:
        """See ``base.Sandbox``."""
        return Launch((sys.executable, *start(script, str(INSIDE.parents[PACKAGE.count(".")])), *arguments))
