"""No sandbox: a process of the user's own with limits on time, memory and file sizes alone. Only on request."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from peft_core.errors import InvalidInput
from peft_evaluation.sandbox.base import INSIDE, PACKAGE, Launch, Limits, Sandbox, Workspace, start


class Unconfined:
    """See ``base.Sandbox``; reaches everything that the user can."""

    name = "none"

    def launch(self, script: str, arguments: Sequence[str], limits: Limits) -> Launch:
        """See ``base.Sandbox``."""
        return Launch((sys.executable, *start(script, str(INSIDE.parents[PACKAGE.count(".")])), *arguments))

    def workspace(self, workspace: Workspace) -> Sandbox:
        """Refused: without a sandbox a repository's tests would write into the repository itself."""
        raise InvalidInput(
            "your tests are only run in a sandbox",
            why=f"without one they would run in {workspace.folder} itself",
            fix="Leave --allow-unsandboxed out",
        )
