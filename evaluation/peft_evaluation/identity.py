"""What a run is: everything that decides its answers. A run goes on only as it was begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from peft_core import files
from peft_core.errors import Conflict
from peft_evaluation.strategies.base import Strategy

FILE = "run.json"


class Asked(msgspec.Struct, frozen=True):
    """One strategy as it was first asked for."""

    seeds: tuple[int, ...]
    settings: dict[str, str]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``."""

    command: str
    """Of its beginning."""
    data: str
    part: str
    data_digest: str
    model: str
    model_sha256: str
    engine: str
    formats: str
    decoding: dict[str, str]
    max_tokens: int
    context_tokens: int
    strategies: dict[str, Asked]


def asked(strategies: Sequence[Strategy]) -> dict[str, Asked]:
    """Strategies as ``run.json`` has them."""
    return {each.id: Asked(each.seeds, dict(each.settings)) for each in strategies}


def begin(folder: Path, wanted: Identity, *, resume: bool) -> Identity:
    """Write down what the run is, or check that it is the one in ``folder``, to which strategies may be added.

    Returns the identity with all strategies so far. Raises Conflict for a run that is there without ``resume``, and
    naming what differs.
    """
    path = folder / FILE
    require_free(folder, resume=resume)
    before = read(folder) if path.exists() else None
    if before is not None:
        _require_same(before, wanted, folder)
        merged = {**before.strategies, **wanted.strategies}
        wanted = msgspec.structs.replace(wanted, command=before.command, strategies=merged)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(wanted), indent=2))
    return wanted


def require_free(folder: Path, *, resume: bool) -> None:
    """Raise Conflict where a run is and none is to go on."""
    if not resume and (folder / FILE).exists():
        raise Conflict(
            f"{folder} holds an evaluation already",
            fix="Give the same command with `--resume`, another `--name`, or delete that folder",
        )


def read(folder: Path) -> Identity:
    """The run in ``folder``; raises Conflict when its record cannot be read."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, ValueError, RecursionError) as error:
        raise Conflict(f"cannot read {path}", why=str(error), fix="Begin again under another `--name`") from None


def _require_same(before: Identity, wanted: Identity, folder: Path) -> None:
    differing = [
        f"{name} was {getattr(before, name)!r} and is {getattr(wanted, name)!r}"
        for name in Identity.__struct_fields__
        if name not in ("command", "strategies") and getattr(before, name) != getattr(wanted, name)
    ]
    differing += [
        f"{name} was {before.strategies[name]} and is {strategy}"
        for name, strategy in wanted.strategies.items()
        if name in before.strategies and before.strategies[name] != strategy
    ]
    if differing:
        raise Conflict(
            f"the evaluation in {folder} was begun otherwise",
            why="; ".join(differing),
            fix="Go on as it was begun, or begin another with `--name`",
        )
