"""The interface of tuning methods, and the part that all methods of PEFT share.

A method checks its options, puts trainable weights on a base, and saves and loads them bit for bit. It has no state and
trains nothing itself: see ``trainer``. Each method of PEFT adds its config to ``PeftMethod``.

The config of an adapter's folder is data: a key that is not understood has to be at its default, and nothing that names
code or another place to load from is accepted. Weights are safetensors or refused.
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
from peft_daemon.adapters.peft_files import CONFIG_FILE, MAX_FILE_BYTES, PICKLE_SUFFIXES, WEIGHTS_FILE
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.engines.torch.families import Family

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn

Calibration = Iterable[Mapping[str, "Tensor"]]
"""A few batches (``input_ids``, ``attention_mask``, …) as in training; for initializations that look at data (EVA)."""

ALWAYS_ALLOWED = frozenset({"gradient_checkpointing"})
"""Options that every method has."""
_INFORMATION = {"peft_version", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_type"}
_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class MethodOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that a user may set; None means the method's default. A value a method does not have is refused."""

    rank: Annotated[int, Meta(ge=1, le=4096)] | None = None
    alpha: Annotated[float, Meta(gt=0, lt=1e6)] | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None
    dora: bool | None = None
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    rslora: bool | None = None
    """Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""
    init: str | None = None
    """How LoRA's factors begin: see ``lora.INITIALIZATIONS``."""
    virtual_tokens: Annotated[int, Meta(ge=1, le=1024)] | None = None
    init_text: str | None = None
    """What prompt tuning's virtual tokens begin as."""
    gradient_checkpointing: bool = False
    """Whether training will recompute activations; asked of the method here, switched on by ``trainer``."""


class Method(Protocol):
    """One way to tune a model."""

    @property
    def id(self) -> str:
        """``lora``, ``qlora-4bit``, …"""

    @property
    def learning_rate(self) -> float:
        """The study's."""

    @property
    def makes_adapter(self) -> bool:
        """Whether what it saves goes on top of a base; full fine-tuning saves a model of its own."""

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Whether ``apply`` has to be given a few batches."""

    def precision_on(self, device: str) -> Precision:
        """How the base has to be loaded on ``cpu``, ``cuda`` or ``mps``."""

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work, before anything is loaded; raises InvalidInput."""

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """The model to train, its trainable parameters initialized from ``seed`` alone, in training mode.

        It takes ``base.model`` over: do not use that afterwards.
        """

    def trainable_parameters(self, model: nn.Module) -> int:
        """How many numbers are trained."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the trained weights into ``folder`` (exists, empty): safetensors and a config. Not atomic."""

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """The tuned model for inference, with bit-identical weights; takes ``base.model`` over.

        Raises NotFound or InvalidInput for a folder that this method did not write or that holds a pickle.
        """


def refuse_options(method_id: str, options: MethodOptions, allowed: frozenset[str]) -> None:
    """Raise InvalidInput for an option that is given and that the method does not have."""
    for name, value in msgspec.structs.asdict(options).items():
        if value is not None and name not in allowed | ALWAYS_ALLOWED:
            raise InvalidInput(
                f"'{name}' is no option of {method_id}",
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
    """Return how many numbers of a model are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclass(frozen=True, kw_only=True)
class PeftMethod:
    """Base class of the methods that PEFT implements: subclasses build its config and name their options."""

    id: str
    learning_rate: float
    quantized: Precision | None = None
    """How the base has to be held; None for any dense form."""
    makes_adapter: bool = True

    allowed: ClassVar[frozenset[str]] = frozenset()
    """Options the method has."""
    understood: ClassVar[frozenset[str]] = frozenset()
    """Keys of ``adapter_config.json`` that may differ from their defaults."""

    def config(self, base: LoadedBase, options: MethodOptions) -> PeftConfig:
        """PEFT's description of the adapter to make."""
        raise NotImplementedError

    def config_type(self) -> type[PeftConfig]:
        """The class of ``config``."""
        raise NotImplementedError

    def precision_on(self, device: str) -> Precision:
        """float32 on a CPU, which computes bfloat16 slowly; bfloat16 elsewhere; quantized where that is the method."""
        return self.quantized or (Precision.FLOAT32 if device.startswith("cpu") else Precision.BFLOAT16)

    def needs_calibration(self, options: MethodOptions) -> bool:
        """Only one initialization of LoRA does."""
        return False

    def check(self, family: Family, options: MethodOptions) -> None:
        """Refuse what cannot work; raises InvalidInput."""
        refuse_family(self.id, family)
        refuse_options(self.id, options, self.allowed)

    def apply(
        self, base: LoadedBase, options: MethodOptions, seed: int, *, calibration: Calibration | None = None
    ) -> nn.Module:
        """The ``PeftModel`` to train; see ``Method.apply``."""
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
        """Give new weights their first values, where PEFT's own are not the method's."""

    def trainable_parameters(self, model: nn.Module) -> int:
        """How many numbers are trained."""
        return count_trainable(model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
        from peft import get_peft_model_state_dict  # noqa: PLC0415  (seconds)

        # Left to itself PEFT would ask the hub whether the vocabulary was resized.
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        described: Any = model.peft_config
        config, state = self.released(model, described["default"], state)
        write_weights(folder, config, state)

    def released(
        self, model: nn.Module, config: Any, state: dict[str, torch.Tensor]
    ) -> tuple[PeftConfig, Mapping[str, torch.Tensor]]:
        """Config and weights as they fit the base as released, whatever was done to it while training."""
        return config, state

    def load(self, base: LoadedBase, folder: Path) -> nn.Module:
        """The ``PeftModel`` for inference; see ``Method.load``."""
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
    """Refuse a folder that is not an adapter of this kind and of nothing else; raises NotFound or InvalidInput."""
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
                why="it may change what the adapter computes, or load something else, and is not understood here",
                fix="Train without it, or merge the adapter into its base with the tool that made it",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a JSON object", why=str(error), fix="Save the adapter again") from None


def _off(default: object) -> tuple[object, ...]:
    """The values that say the same as the default does."""
    return (default, None) if default else (default, None, False, [], {})


def _check_names(key: str, value: object) -> None:
    """PEFT reads module names as regular expressions, which a file must not be free to choose."""
    if key not in {"target_modules", "feedforward_modules", "exclude_modules", "rank_pattern", "alpha_pattern"}:
        return
    if value is not None and not isinstance(value, list | dict):
        raise InvalidInput(f"{key} in {CONFIG_FILE} is {value!r}", why="it has to list plain module names")
    for name in value or ():
        if not isinstance(name, str) or not _PLAIN.fullmatch(name):
            raise InvalidInput(f"{key} in {CONFIG_FILE} has the name {name!r}", why="it is no plain module name")
