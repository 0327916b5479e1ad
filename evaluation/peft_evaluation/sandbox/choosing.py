"""Which sandbox there is. Without one nothing is run, unless that was asked for."""

from __future__ import annotations

from peft_evaluation.sandbox.base import Sandbox
from peft_evaluation.sandbox.bubblewrap import Bubblewrap
from peft_evaluation.sandbox.unconfined import Unconfined


def choose(*, allow_unsandboxed: bool) -> Sandbox:
    """Bubblewrap where it works. Raises NotFound where it does not, or nothing protects if that is allowed."""
    return Unconfined() if allow_unsandboxed else Bubblewrap()
