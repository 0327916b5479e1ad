"""Which sandbox there is. Without one nothing is run, unless that was asked for."""

from __future__ import annotations

import sys

from peft_core.errors import NotFound
from peft_evaluation.sandbox.base import Sandbox
from peft_evaluation.sandbox.bubblewrap import Bubblewrap
from peft_evaluation.sandbox.unconfined import Unconfined


def choose(*, allow_unsandboxed: bool) -> Sandbox:
    """Bubblewrap where it works; with ``allow_unsandboxed`` no protection. Raises NotFound where there is neither."""
    if sys.platform != "linux":
        raise NotFound(
            f"generated code cannot be run on {sys.platform}",
            why="handing it over and confining it needs Linux",
            fix="Evaluate on Linux, in a container or a virtual machine",
        )
    return Unconfined() if allow_unsandboxed else Bubblewrap()
