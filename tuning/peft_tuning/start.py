"""Begin a run with the weights of an adapter that serves already, so that what it knows is not learned again.

Its low-rank factors are the new adapter's first ones; the scale that it is served with goes into one of them, so that
the run begins exactly with what completions are computed with now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors.torch import load_file

from peft_core.api_types import Task
from peft_core.errors import InvalidInput, PeftDaemonError
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.adapters.peft_files import CONFIG_FILE, WEIGHTS_FILE
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines.torch.families import Family
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

CONTINUED = ("lora", "qlora-4bit", "qlora-8bit")
"""Methods that make a LoRA and can begin with another."""


@dataclass(frozen=True)
class StartingPoint:
    """An adapter whose weights a run begins with."""

    manifest: Manifest
    lease: AdapterLease

    @property
    def rank(self) -> int:
        """Rank of its modules."""
        return self.manifest.rank

    @property
    def alpha(self) -> float:
        """Alpha of its modules."""
        return self.manifest.alpha

    @property
    def identity(self) -> str:
        """Digest and scale, for the identity of a run."""
        return f"{self.lease.digest}@{self.lease.scale:g}"


def starting_point(registry: AdapterRegistry, manifest: Manifest, family: Family) -> StartingPoint:
    """Return the adapter as a starting point.

    Raises InvalidInput for one that is no plain LoRA of all the modules that tuning changes, NotFound if it was
    removed meanwhile.
    """
    lease = registry.lease(manifest, manifest.scale, engine=TORCH)
    config = msgspec.json.decode((lease.path / CONFIG_FILE).read_bytes(), type=dict[str, object])
    patterns = [name for name in ("rank_pattern", "alpha_pattern", "use_dora", "use_rslora") if config.get(name)]
    if manifest.method not in CONTINUED or patterns or set(manifest.targets) != set(family.lora_targets):
        raise InvalidInput(
            f"no run can begin with '{manifest.name}' ({manifest.method})",
            why="only with a LoRA of one rank on all the modules that tuning changes"
            + (f"; it has {', '.join(patterns)}" if patterns else ""),
            fix="Leave out `--start`, or type `--start none`",
        )
    return StartingPoint(manifest, lease)


def what_serves(
    registry: AdapterRegistry, repository: str | None, base_sha256: str, task: Task = Task.FILL
) -> Manifest | None:
    """Return the adapter that serves ``task`` below ``repository`` (None: in folders without a setting) now.

    None if the base does, or it is for another base.
    """
    try:
        manifest = registry.resolve(task, repository)
    except PeftDaemonError:
        return None  # it was removed or is damaged: requests are answered by the base
    return manifest if manifest is not None and manifest.base_sha256 == base_sha256 else None


def with_start(job: TuneJob, start: StartingPoint) -> TuneJob:
    """Return the job with the rank and alpha of its starting point; raises InvalidInput for other ones."""
    given = job.options
    for name, own, wanted in (("rank", start.rank, given.rank), ("alpha", start.alpha, given.alpha)):
        if wanted is not None and wanted != own:
            raise InvalidInput(
                f"a run that begins with '{start.lease.name}' has its {name}, {own:g}",
                fix=f"Leave out `--{name}`, or type `--start none`",
            )
    options: MethodOptions = msgspec.structs.replace(given, rank=start.rank, alpha=start.alpha)
    return msgspec.structs.replace(job, options=options)


def factors(adapter: AdapterLease) -> dict[str, Tensor]:
    """Return the low-rank factors of a LoRA, in float32, with the scale that it is served at in one of each pair."""
    return {
        name: tensor.float() * (adapter.scale if ".lora_B." in name else 1.0)
        for name, tensor in load_file(adapter.path / WEIGHTS_FILE).items()
    }


def load_start(model: nn.Module, start: StartingPoint) -> None:
    """Give the LoRA on ``model`` the weights of its starting point; raises InvalidInput if they do not fit."""
    from peft import set_peft_model_state_dict  # noqa: PLC0415  (seconds)

    try:
        told: Any = set_peft_model_state_dict(model, factors(start.lease))
    except RuntimeError as error:  # a tensor of another shape
        raise _unfitting(start, str(error).splitlines()[-1].strip()) from None
    missing = [name for name in told.missing_keys if ".lora_" in name]
    if told.unexpected_keys or missing:
        raise _unfitting(start, f"{len(told.unexpected_keys)} tensors too many, {len(missing)} missing")


def _unfitting(start: StartingPoint, why: str) -> InvalidInput:
    return InvalidInput(f"'{start.lease.name}' does not fit this base", why=why, fix="Type `--start none`")
