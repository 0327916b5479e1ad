"""The settings of a run, and the identity that decides whether a run may be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core import files
from peft_core.errors import Conflict, NotFound
from peft_tuning.methods.base import MethodOptions

FILE = "run.json"
Positive = Annotated[int, Meta(ge=1)]


class TuneJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a run; the defaults are the study's (arXiv 2308.10462), except where memory is concerned."""

    method: str
    options: MethodOptions = MethodOptions()
    epochs: Positive = 5
    batch_size: Positive = 8
    """Examples per optimizer step, independent of the number of forward passes and processes."""
    batch_tokens: Annotated[int, Meta(ge=16)] = 1024
    """Positions per forward pass: fewer need less memory and change only rounding."""
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    """None: the method's default."""
    warmup: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Share of all steps in which the learning rate rises to its value; then it falls to 0 at the last step."""
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 42
    evaluations_per_epoch: Positive = 5
    patience: Positive | None = None
    """Stop after this many evaluations in a row without a better one; None: never."""
    max_steps: Positive | None = None
    limit: Positive | None = None
    """Use only this many examples of each part, the first ones."""
    validation_limit: Positive | None = None
    """Use only this many examples of the validation part, all of which are used at every evaluation."""
    threads: Positive | None = None
    """CPU threads; None: torch's default. Sums depend on it, so a resumed run uses the number it began with."""
    niceness: Annotated[int, Meta(ge=0, le=19)] = 0
    """Niceness of the process: the higher, the more other programs go first."""
    checkpoint_every_s: Annotated[float, Meta(gt=0)] = 600.0
    """Checkpoints are also made at every evaluation and when the run is interrupted."""
    report_to: tuple[str, ...] = ()
    """Trackers of transformers: ``tensorboard``, ``trackio``."""


SHORT_RUN_RATE = 4e-4
"""Learning rate of a LoRA in a short run."""


def short_run(method: str) -> dict[str, object]:
    """Return the settings for documents of a repository, where nothing else is asked for; see docs/learning.md."""
    return {
        **{"epochs": 1, "batch_size": 2},
        # The newest code chooses the scale and judges afterwards; evaluations meanwhile cost as much as learning.
        **{"evaluations_per_epoch": 1, "validation_limit": 16},
        **({"learning_rate": SHORT_RUN_RATE} if "lora" in method else {}),
    }


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The values that decide every bit of the result on a CPU; a run is resumed only if all are unchanged."""

    base_sha256: str
    quantization: str
    precision: str
    data_digest: str
    prompt_formats: dict[str, str]
    prompt_tokens: int
    response_tokens: int
    method: str
    options: MethodOptions
    epochs: int
    batch_size: int
    batch_tokens: int
    learning_rate: float
    warmup: float
    seed: int
    evaluations_per_epoch: int
    patience: int | None
    max_steps: int | None
    limit: int | None
    validation_limit: int | None
    threads: int
    processes: int
    device: str
    optimizer: str
    start: str = ""
    """Digest and scale of the adapter that it began with; empty for new weights."""


def save_identity(folder: Path, identity: RunIdentity) -> None:
    """Write the identity of a run into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_durable(folder / FILE, msgspec.json.format(msgspec.json.encode(identity), indent=2))


def load_identity(folder: Path) -> RunIdentity:
    """Read the identity of the run in ``folder``.

    Raises NotFound without one, Conflict when it cannot be read.
    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=RunIdentity)
    except FileNotFoundError:
        raise NotFound(f"no run to resume in {folder}", fix="Give the same command without `--resume`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Conflict(
            f"the run in {folder} cannot be resumed", why=str(error), fix="Start again without `--resume`"
        ) from None


def require_same_run(begun: RunIdentity, asked: RunIdentity) -> None:
    """Raise Conflict, naming each difference, unless both are the same run."""
    pairs = ((name, getattr(begun, name), getattr(asked, name)) for name in RunIdentity.__struct_fields__)
    different = [f"{name} was {_shown(was)}, is {_shown(now)}" for name, was, now in pairs if was != now]
    if different:
        raise Conflict(
            "this is not the run that was interrupted",
            why="; ".join(different),
            fix="Give the values it began with, or start again without `--resume`",
        )


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) < 64 or not isinstance(value, str) else f"{text[:12]}…"
