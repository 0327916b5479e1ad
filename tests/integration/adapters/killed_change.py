"""A change of the registry that kills its own process before its n-th step on the disk. Run by test_registry_crash.

Arguments, as JSON: the change and its inputs. Ends normally when the change has fewer than ``kill_at`` steps.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_core.api_types import Task
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel

orders = json.loads(sys.argv[1])
steps = 0


def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call``, but the process dies at once instead of taking step number ``kill_at``."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        global steps  # noqa: PLW0603
        if steps == orders["kill_at"]:
            sys.stdout.write(f"killed before {call.__name__}\n")
            sys.stdout.flush()
            os._exit(137) if sys.platform == "win32" else os.kill(os.getpid(), 9)
        steps += 1
        return call(*args, **kwargs)

    return counted


# All ways in which the registry changes the disk: new folders, synced files, renames, deletions.
for owner, name in [(Path, "mkdir"), (os, "fsync"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree")]:
    setattr(owner, name, mortal(getattr(owner, name)))

registry = AdapterRegistry(Path(orders["registry"]))
match orders["change"]:
    case "import":
        base = BaseModel("tiny", orders["sha256"], Path(orders["base"]))
        registry.import_(Path(orders["peft"]), name=orders["name"], base=base)
    case "use":
        registry.use(orders["name"], Task.FILL)
    case "rollback":
        registry.rollback(orders["name"])
    case "remove":
        registry.remove(orders["name"], force=True)
