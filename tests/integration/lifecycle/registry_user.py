"""A process that uses adapters and checks the model as commands do, until it is killed.

It notes which adapter it is about to use for sentences, and when that is done, so that a test knows what must be there.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from peft_core.api_types import BASE, Task
from peft_core.errors import Conflict
from support.tiny_service import TinyService

SEEDS = (1, 20, 50)
USED, ABOUT_TO_USE = "used", "about-to-use"


def possible_uses(notes: Path) -> set[str]:
    """The adapters of which one must be in use for sentences, by what a killed process noted."""
    found = {BASE}
    for line in notes.read_text().splitlines() if notes.exists() else []:
        word, _, name = line.partition(" ")
        found = {name} if word == USED else found | {name}
    return found


def change(service: TinyService, chance: random.Random, note: Callable[[str], object]) -> None:
    """One change."""
    seed = chance.choice(SEEDS)
    name = f"a{seed}"
    match chance.choice(("import", "use", "rollback", "remove", "verify", "touch")):
        case "import":
            service.import_adapter(chance.choice(SEEDS), name)
        case "use":
            chosen = chance.choice([BASE, *(f"a{each}" for each in SEEDS)])
            note(f"{ABOUT_TO_USE} {chosen}\n")
            service.registry.use(chosen, Task.INTENT)
            note(f"{USED} {chosen}\n")
        case "rollback":
            with suppress(Conflict):
                service.registry.rollback(name)
        case "remove":
            service.import_adapter(seed, "spare")
            service.registry.remove("spare", force=True)
        case "verify":
            service.store.verify(service.entry)
        case "touch":
            # A daemon that serves hashes the file again.
            service.file.touch()
            service.store.verify(service.entry)


def main(root: str, notes: str, seed: str) -> None:
    service = TinyService(Path(root), {"PEFT_DAEMON_HOME": str(Path(root, "home")), "PEFT_DAEMON_MODEL": "tiny"})
    chance = random.Random(int(seed))
    with Path(notes).open("a", buffering=1) as file:
        while True:
            change(service, chance, file.write)


if __name__ == "__main__":
    main(*sys.argv[1:])
