"""The versions of adapters that were learned in the background: their names, going back, and removing old ones."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from peft_core.api_types import Task
from peft_core.errors import Conflict, NotFound, PeftDaemonError
from peft_core.paths import Paths
from peft_core.status_types import Acceptance, GateGain, ServingAdapter
from peft_daemon.adapters.manifest import derive_name
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.learning.state import RepositoryState

Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""
MAX_VERSIONS = 3
"""Versions of an adapter that are kept: the one in use, and two to go back to."""


def choose_name(registry: AdapterRegistry, state: RepositoryState, others: Iterable[str], base_sha256: str) -> str:
    """Return the name for the next version: the one it had, or a new one for a first run or another base."""
    if state.adapter and state.base_sha256 == base_sha256:
        return state.adapter
    folder = Path(state.root).name.removesuffix(".git")
    taken = {*others, *(each.name for each in registry.list_adapters())}
    candidates = [derive_name(folder, "learned"), *(derive_name(folder, str(n), "learned") for n in range(2, 1000))]
    return next(name for name in candidates if name not in taken)


def serving_now(registry: AdapterRegistry, root: str) -> tuple[str, str | None]:
    """Return the digest of what fills in below ``root`` (empty: the base), and the folder's own setting."""
    try:
        manifest = registry.resolve(Task.FILL, root)
    except PeftDaemonError:  # it was removed or is damaged: requests are answered by the base
        manifest = None
    own = registry.own_setting(Path(root))
    return manifest.digest if manifest else "", own.tasks.get(Task.FILL) if own else None


def describe_serving(registry: AdapterRegistry, state: RepositoryState) -> ServingAdapter:
    """Return what fills in below the repository, with what was measured of it."""
    manifest, version = registry.resolve(Task.FILL, state.root), state.serving
    if manifest is None:
        return ServingAdapter(name="", acceptance=_acceptance(state, ""))
    versions = [each for each in registry.history(manifest.name) if each.digest == manifest.digest]
    learned = version if version is not None and version.digest == manifest.digest else None
    return ServingAdapter(
        name=manifest.name,
        digest=manifest.digest,
        since=datetime.fromisoformat(versions[-1].since).timestamp() if versions else 0.0,
        learned=learned is not None,
        gain=_gain(manifest.metrics),
        acceptance=_acceptance(state, manifest.digest),
        acceptance_before=_acceptance(state, learned.before) if learned else None,
    )


def _acceptance(state: RepositoryState, digest: str) -> Acceptance:
    outcomes = state.outcomes.get(digest, "")
    return Acceptance(outcomes.count("1"), len(outcomes))


def _gain(metrics: Mapping[str, float]) -> GateGain | None:
    names = ("gate_exact", "gate_exact_served", "gate_holes")
    exact, before, places = (metrics.get(name) for name in names)
    if exact is None or before is None or not places:
        return None
    low, high = difference_interval(exact, int(places), before, int(places))
    return GateGain(exact=exact, exact_before=before, places=int(places), low=low, high=high)


def difference_interval(share: float, n: int, other: float, other_n: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares of so many places (Newcombe 1998, method 10).

    The places of the gate are the same for both, so the true interval is narrower where both fail at the same ones.
    """
    (low, high), (other_low, other_high) = _wilson(share, n), _wilson(other, other_n)
    below = math.hypot(share - low, other_high - other)
    above = math.hypot(high - share, other - other_low)
    return share - other - below, share - other + above


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre, spread = share + Z * Z / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (centre - spread) / (1 + Z * Z / n), (centre + spread) / (1 + Z * Z / n)


def go_back(registry: AdapterRegistry, state: RepositoryState) -> RepositoryState:
    """Let serve what served before the version in use, and return the state after that.

    Raises Conflict if no version that was learned in the background is in use, and what the registry raises.
    """
    version, root = state.serving, Path(state.root)
    if version is None or serving_now(registry, state.root)[0] != version.digest:
        raise Conflict(
            f"nothing that was learned in the background is in use in {state.root}",
            fix="`peft-daemon adapters list` shows what is; `peft-daemon adapters rollback NAME` goes back by hand",
        )
    digests = [each.digest for each in registry.history(state.adapter)]
    if version.setting_before is None:
        registry.unset(Task.FILL, root)
    elif version.setting_before != state.adapter:
        registry.use(version.setting_before, Task.FILL, root)
    elif digests[-2:] == [version.before, version.digest]:
        registry.rollback(state.adapter)
    else:
        registry.use(version.before, Task.FILL, root)
    registry.show_context(version.context_before, root)
    kept = {key: value for key, value in state.outcomes.items() if key != version.digest}
    return msgspec.structs.replace(
        state, serving=None, unlearned=0, outcomes=kept, unused=(*state.unused, version.digest)
    )


def remove_old(
    registry: AdapterRegistry, paths: Paths, state: RepositoryState, *, newest: str
) -> tuple[tuple[str, ...], int]:
    """Remove versions that nothing needs, and the folder of the finished run.

    What is in use, or is needed to go back, stays, and so does the version that the run just made. Returns the unused
    digests that are left for the next clean-up, and how many were removed.
    """
    digests = [each.digest for each in registry.history(state.adapter)]
    needed = {newest, *((state.serving.digest, state.serving.before) if state.serving else ())}
    kept = needed | ({*digests[-MAX_VERSIONS:]} - {*state.unused})
    left, removed = [each for each in state.unused if each in kept], 0
    for digest in dict.fromkeys((*state.unused, *digests)):
        if digest in kept:
            continue
        try:
            registry.remove(digest)
            removed += 1
        except NotFound:
            pass
        except Conflict:  # the user put it in use, or it is what the name means
            left.append(digest)
            continue
        for notes in (paths.data / "learned").glob(f"{digest}.*"):
            with contextlib.suppress(OSError):
                notes.unlink()
    shutil.rmtree(run_folder(paths, state.adapter), ignore_errors=True)
    return tuple(left), removed


def run_folder(paths: Paths, name: str) -> Path:
    """Return the folder in which tuning keeps the checkpoints and the result of a run."""
    return paths.data / "tuning" / name


def can_resume(paths: Paths, name: str) -> bool:
    """Return whether a run of this name has a checkpoint to go on from, or came to its end and nobody was told."""
    folder = run_folder(paths, name)
    begun = (folder / "outcome.json").exists() or any((folder / "checkpoints").glob("step-*"))
    return begun and (folder / "run.json").exists()
