"""The interface of tuning methods, and the part that all methods of PEFT share.

A method checks its options, puts trainable weights on a base, and saves and loads them bit for bit. It has no state and
trains nothing itself: see ``trainer``. Each method of PEFT adds its config to ``PeftMethod``.

The config in an adapter's folder is not trusted: a key that is not known here must have its default, and nothing that
names code or another location to load from is accepted. Weights must be safetensors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import msgspec
import torch
from msgspec import Meta
from safetensors.torch import save_file
from torch import nn

from peft_core.errors import InvalidInput, NotFound
from peft_core.processor import multiplies_bfloat16
from peft_daemon.adapters.peft_files import CONFIG_FILE, MAX_FILE_BYTES, MERGE_INSTEAD, WEIGHTS_FILE
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family
from peft_daemon.models.hub_folder import PICKLE_SUFFIXES

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn

Calibration = Iterable[Mapping[str, "Tensor"]]
"""A few batches (``input_ids``, ``attention_mask``, …) as in training, for initializations that use data (EVA)."""

ALWAYS_ALLOWED = frozenset({"gradient_checkpointing"})
"""Options that every method has."""
_INFORMATION = {"peft_version", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type"}
_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class MethodOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that a user may set; None means the method's default.

    Options that a method lacks are refused.
    """

    rank: Annotated[int, Meta(ge=1, le=4096)] | None = None
    alpha: Annotated[float, Meta(gt=0, lt=1e6)] | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None
    dora: bool | None = None
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    rslora: bool | None = None
    """Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""
    init: str | None = None
    """Initialization of LoRA's factors: see ``lora.INITIALIZATIONS``."""
    virtual_tokens: Annotated[int, Meta(ge=1, le=1024)] | None = None
    init_text: str | None = None
    """Text whose embeddings initialize prompt tuning's virtual tokens."""
    gradient_checkpointing: bool = False
    """Whether training recomputes activations: the method checks it, ``trainer`` switches it on."""


class Method(Protocol):
    """One way to tune a model."""

    @property
    def id(self) -> str:
        """``lora``, ``qlora-4bit``, …"""

    @property
    def learning_rate(self) -> float:
        """Default learning rate, as in the study."""

    @property
    def makes_adapter(self) -> bool:
        """Whether it saves an adapter; full fine-tuning saves a whole model."""

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Return whether ``apply`` needs ``calibration``."""

    def precision_on(self, device: str) -> Precision:
        """Return the precision in which the base must be loaded on ``cpu``, ``cuda`` or ``mps``."""

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work, before anything is loaded; raises InvalidInput."""

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """Return the model to train, in training mode; its trainable parameters depend on ``seed`` alone.

        ``base.model`` is changed: do not use it afterwards.
        """

    def trainable_parameters(self, model: nn.Module) -> int:
        """Return the number of trained parameters."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the trained weights and a config into ``folder``, which is empty. Not atomic."""

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """Load the tuned model for inference, with bit-identical weights; ``base.model`` is changed.

        Raises NotFound or InvalidInput for a folder that this method did not write or that holds a pickle.
        """


def refuse_options(method_id: str, options: MethodOptions, allowed: frozenset[str]) -> None:
    """Raise InvalidInput if an option is set that the method does not have."""
    for name, value in msgspec.structs.asdict(options).items():
        if value is not None and name not in allowed | ALWAYS_ALLOWED:
            raise InvalidInput(
                f"'{name}' is not an option of {method_id}",
                why=f"it has {', '.join(sorted(allowed)) or 'none'}",
                fix="Leave it out, or choose another `--method`",
            )


def refuse_family(method_id: str, family: Family) -> None:
    """Raise InvalidInput for a family that cannot be tuned this way."""
    if (reason := family.unsupported.get(method_id)) is not None:
        raise InvalidInput(
            f"{family.id} models cannot be tuned with {method_id}", why=reason, fix="Choose another `--method`"
        )


def count_trainable(model: nn.Module) -> int:
    """Return the number of trained parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclass(frozen=True, kw_only=True)
class PeftMethod:
    """Base class of the methods that PEFT implements: subclasses build its config and name their options."""

    id: str
    learning_rate: float
    quantized: Precision | None = None
    """The quantization that the base must have; None for any dense precision."""
    makes_adapter: bool = True

    allowed: ClassVar[frozenset[str]] = frozenset()
    """Options that the method has."""
    understood: ClassVar[frozenset[str]] = frozenset()
    """Keys of ``adapter_config.json`` that may differ from their defaults."""

    def config(self, base: LoadedBase, options: MethodOptions) -> PeftConfig:
        """Return PEFT's config of the adapter to make."""
        raise NotImplementedError

    def config_type(self) -> type[PeftConfig]:
        """Return the class of ``config``."""
        raise NotImplementedError

    def precision_on(self, device: str) -> Precision:
        """Return the method's quantization, else bfloat16, or float32 on a processor that is slow in bfloat16.

        Only the base is held so: PEFT keeps the trained weights in float32.
        """
        slow = device.startswith("cpu") and not multiplies_bfloat16()
        return self.quantized or (Precision.FLOAT32 if slow else Precision.BFLOAT16)

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Return False; only an initialization of LoRA needs it."""
        return False

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        refuse_family(self.id, family)
        refuse_options(self.id, options, self.allowed)

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """Return the ``PeftModel`` to train; see ``Method.apply``."""
        from peft import get_peft_model  # noqa: PLC0415  (seconds)

        self.check(base.family, options)
        self._check_precision(base)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = get_peft_model(base.model, self.config(base, options))
            self.initialize(model, base, options, calibration)
        return model.train()

    def initialize(
        self, model: PeftModel, base: LoadedBase, options: MethodOptions, calibration: Calibration | None
    ) -> None:
        """Initialize the new weights if PEFT's own values are not the method's."""

    def trainable_parameters(self, model: nn.Module) -> int:
        """Return the number of trained parameters."""
        return count_trainable(model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
        from peft import get_peft_model_state_dict  # noqa: PLC0415  (seconds)

        # By default PEFT would ask the hub whether the vocabulary was resized.
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        described: Any = model.peft_config
        config, state = self.for_original_base(model, described["default"], state)
        write_weights(folder, config, state)

    def for_original_base(
        self, model: nn.Module, config: Any, state: dict[str, torch.Tensor]
    ) -> tuple[PeftConfig, Mapping[str, torch.Tensor]]:
        """Return config and weights for the original base, if initialization changed the base's weights."""
        return config, state

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """Load the ``PeftModel`` for inference; see ``Method.load``."""
        from peft import PeftModel  # noqa: PLC0415  (seconds)

        check_folder(folder, self.config_type(), self.understood)
        self._check_precision(base)
        with torch.random.fork_rng():
            model = PeftModel.from_pretrained(base.model, str(folder), local_files_only=True)
        return model.eval()

    def _check_precision(self, base: LoadedBase) -> None:
        if base.precision.quantized and base.precision is not self.quantized:
            raise InvalidInput(
                f"{self.id} does not work on a base held as {base.precision}",
                fix="Choose `--method qlora-4bit` or `--method qlora-8bit`",
            )


def write_weights(folder: Path, config: PeftConfig, state: Mapping[str, Tensor]) -> None:
    """Write config and weights into an existing folder."""
    for_inference = dataclasses.replace(config)
    for_inference.inference_mode = True
    for_inference.save_pretrained(str(folder))
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def check_folder(folder: Path, kind: type[PeftConfig], understood: frozenset[str]) -> None:
    """Refuse a folder that is anything but an adapter of this kind; raises NotFound or InvalidInput."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.suffix.lower() in PICKLE_SUFFIXES:
            raise InvalidInput(
                f"{entry} is a pickle or may be loaded as one",
                why="such files run code when they are loaded",
                fix="Keep only the safetensors file",
            )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise NotFound(f"{folder} holds no {name}", fix="Give a folder that `peft-daemon tune` or PEFT wrote")
        if (folder / name).stat().st_size > MAX_FILE_BYTES[name]:
            raise InvalidInput(f"{folder / name} is larger than {MAX_FILE_BYTES[name]:,} bytes")
    values = _read(folder / CONFIG_FILE)
    default: Any = kind()
    if values.get("peft_type") != default.peft_type:
        raise InvalidInput(
            f"{folder} holds an adapter of the type {values.get('peft_type')!r}",
            why=f"this method's adapters are of the type '{default.peft_type.value}'",
        )
    for key, value in values.items():
        if key in understood:
            _check_names(key, value)
        elif key not in _INFORMATION and (not hasattr(default, key) or value not in _off(getattr(default, key))):
            raise InvalidInput(
                f"{CONFIG_FILE} sets '{key}'",
                why="it is not known here, and may change what the adapter computes, or load something else",
                fix=f"Train without it, or {MERGE_INSTEAD}",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a JSON object", why=str(error), fix="Save the adapter again") from None


def _off(default: object) -> tuple[object, ...]:
    """Return the values that mean the same as the default."""
    return (default, None) if default else (default, None, False, [], {})


def _check_names(key: str, value: object) -> None:
    """Raise InvalidInput unless module names are plain: PEFT would read others as regular expressions."""
    if key not in {"target_modules", "feedforward_modules", "exclude_modules", "rank_pattern", "alpha_pattern"}:
        return
    if value is not None and not isinstance(value, list | dict):
        raise InvalidInput(f"{key} in {CONFIG_FILE} is {value!r}", why="it must be a list of plain module names")
    for name in value or ():
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise InvalidInput(f"{key} in {CONFIG_FILE} has the name {name!r}", why="it is not a plain module name")
