"""The base model in memory, for the torch engine and tuning: the served GGUF file, or a local folder of safetensors.

Nothing is downloaded, and no code from a model is run.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peft_core.errors import InvalidInput
from peft_core.files import file_sha256
from peft_daemon.engines.torch import families, tokenizer
from peft_daemon.engines.torch.families import Family
from peft_daemon.engines.torch.gguf_model import GgufModel
from peft_daemon.models.content import weights_sha256
from peft_daemon.models.hub_folder import HubFolder, read_hub_folder

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast


OWN_KEYS = ("attn_implementation", "experts_implementation", "use_kernels", "custom_generate")
"""Keys by which a config could name code to fetch and run; they are left out."""
OUTLIERS = 6.0
"""Larger inputs are computed without rounding (LLM.int8(), arXiv 2208.07339, section 3.2)."""


class Precision(StrEnum):
    """The number type of the base's linear layers in memory."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    NF4 = "nf4"
    """4-bit normal floats with double quantization (bitsandbytes; QLoRA, arXiv 2305.14314)."""
    INT8 = "int8"
    """LLM.int8() (bitsandbytes; arXiv 2208.07339)."""

    @property
    def quantized(self) -> bool:
        """Whether the weights are quantized, so that they cannot be trained or changed themselves."""
        return self in {Precision.NF4, Precision.INT8}


@dataclass(frozen=True)
class LoadedBase:
    """A frozen model in evaluation mode, and what a manifest says about it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    family: Family
    precision: Precision
    quantization: str
    """Quantization of its weights, for the manifest: ``Q4_K_M, de-quantized`` or ``none, nf4``."""
    sha256: str
    """sha256 of the GGUF file, or over the folder's weight files."""

    @property
    def decoder_start(self) -> int | None:
        """The token with which the input of a decoder beside an encoder begins; None if the model names none."""
        for id_ in (getattr(self.model.config, "decoder_start_token_id", None), self.tokenizer.pad_token_id):
            if isinstance(id_, int):
                return id_
        return None


def card_memory_bytes(device: torch.device) -> int:
    """Return the most memory that this process had in use on a graphics card; 0 where the model is on none.

    It is not part of the process's resident memory.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def serving_precision(setting: str) -> Precision:
    """Return the precision of the setting ``torch_precision``; ``auto`` is nf4 on CUDA and float32 on a CPU."""
    if setting != "auto":
        return Precision(setting)
    return Precision.NF4 if torch.cuda.is_available() else Precision.FLOAT32


def load_base(path: Path, precision: str) -> LoadedBase:
    """Load a GGUF file or a folder in transformers' layout in the precision of the setting ``torch_precision``.

    Raises NotFound or InvalidInput.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(path, serving_precision(precision), device=device)


def load_model(path: Path, precision: Precision, *, device: str = "cpu") -> LoadedBase:
    """Load a GGUF file or a folder in transformers' layout; raises NotFound or InvalidInput."""
    return (load_hub_folder if path.is_dir() else load_gguf)(path, precision, device=device)


def load_gguf(path: Path, precision: Precision, *, device: str = "cpu") -> LoadedBase:
    """Load the model in a GGUF file, de-quantized to the numbers that llama.cpp computes with.

    Raises NotFound, or InvalidInput for a file that cannot be read or a family that is not known.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (seconds)

    source = GgufModel(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source.config())  # type: ignore[no-untyped-call]
    waiting = {name for name, _ in model.named_parameters()}
    for name, weight in source.weights():
        if name not in waiting:
            raise InvalidInput(f"{path} holds {name}, for which {source.architecture} has no place")
        waiting.remove(name)
        _place(model, name, weight, precision, device)
    if waiting:
        raise InvalidInput(
            f"{path} lacks {', '.join(sorted(waiting)[:3])}", fix="Pull the model again with `peft-daemon models pull`"
        )
    model.tie_weights()
    source.finish(model)
    _return_freed_memory()
    model.name_or_path = path.stem
    sha256 = file_sha256(path)
    return LoadedBase(
        model=_ready(model, precision, device),
        tokenizer=tokenizer.load_tokenizer(path),
        family=families.family_of(source.architecture),
        precision=precision,
        quantization=_described(f"{source.quantization}, de-quantized", precision),
        sha256=sha256,
    )


def load_hub_folder(path: Path, precision: Precision, *, device: str = "cpu") -> LoadedBase:
    """Load a local folder in transformers' layout (``config.json``, safetensors, ``tokenizer.json``).

    Nothing is fetched, no pickle is read and no code of the folder runs. Raises NotFound, and InvalidInput for a family
    that is not known, or a config and weights that do not fit each other.
    """
    folder = read_hub_folder(path)
    family = families.family_of(folder.family)
    loaded_tokenizer = tokenizer.load_folder_tokenizer(path)
    model = _load_weights(folder, family, precision, device)
    model.name_or_path = path.name
    return LoadedBase(
        model=_ready(model, precision, device),
        tokenizer=loaded_tokenizer,
        family=family,
        precision=precision,
        quantization=_described("none", precision),
        sha256=weights_sha256(path),
    )


def _load_weights(folder: HubFolder, family: Family, precision: Precision, device: str) -> PreTrainedModel:
    """Have transformers load the model; raises InvalidInput unless every weight has its place."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM  # noqa: PLC0415  (seconds)

    loader: Any = AutoModelForSeq2SeqLM if family.encoder_decoder else AutoModelForCausalLM
    known = {
        key: value
        for key, value in folder.config.items()
        if key not in (*OWN_KEYS, "model_type") and not key.startswith("_")
    }
    try:
        config = AutoConfig.for_model(folder.family, **known)
        with _quiet_loading():
            model, report = loader.from_pretrained(
                folder.path,
                config=config,
                dtype=_dense_type(precision, device),
                use_safetensors=True,
                device_map=device,
                quantization_config=bitsandbytes_config(precision, device),
                ignore_mismatched_sizes=True,  # told below
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except Exception as error:  # whatever a config from elsewhere may lead to
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InvalidInput(f"the model in {folder.path} cannot be loaded", why=reason, fix=_WRONG_CONFIG) from None
    _require_every_weight(folder.path, report)
    loaded: PreTrainedModel = model
    return loaded


def _require_every_weight(path: Path, report: dict[str, Any]) -> None:
    """Raise InvalidInput where transformers made up a weight, or left one of the files out."""
    why = ""
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        why = f"{name} is {list(stored)} in the file, and {list(wanted)} by the config"
    elif missing := sorted(report["missing_keys"]):
        why = f"the files have no {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    # Buffers that older versions stored (masks, frequencies) are computed anew.
    elif left := sorted(name for name in report["unexpected_keys"] if name.endswith(".weight")):
        why = f"the config has no place for {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else "")
    if why:
        raise InvalidInput(f"config and weights in {path} do not fit each other", why=why, fix=_WRONG_CONFIG)


_WRONG_CONFIG = "Fetch the folder again: config.json and weights have to be of the same model"


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers from drawing a bar, and from printing a table of misfits: the error names one."""
    from transformers.utils import logging as library  # noqa: PLC0415  (seconds)

    log, draws = logging.getLogger("transformers.modeling_utils"), library.is_progress_bar_enabled()
    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Not by its level: from WARNING on it checks more, and tells that elsewhere.
    log.addFilter(_tells_nothing)
    try:
        yield
    finally:
        log.removeFilter(_tells_nothing)
        if draws:
            library.enable_progress_bar()  # type: ignore[no-untyped-call]


def _tells_nothing(_record: logging.LogRecord) -> bool:
    return False


def compute_type(device: str) -> torch.dtype:
    """Return the type in which quantized layers compute.

    CPUs are several times slower in bfloat16 than float32.
    """
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def bitsandbytes_config(precision: Precision, device: str) -> BitsAndBytesConfig | None:
    """Return the quantization config for transformers' loader; None for a precision without quantization."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415  (seconds)

    if precision == "nf4":
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_type(device),
        )
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIERS)  # type: ignore[no-untyped-call]
    return None


def quantized_linear(weight: torch.Tensor, precision: Precision, device: str) -> nn.Module:
    """Return a frozen linear layer without bias that holds ``weight`` (outputs, inputs) in ``precision``."""
    from bitsandbytes.nn import modules as bnb  # noqa: PLC0415  (seconds)

    outputs, inputs = weight.shape
    empty: dict[str, Any] = {"bias": False, "device": "meta"}
    held: Any
    layer: Any
    if precision == "nf4":
        empty |= {"compute_dtype": compute_type(device), "quant_type": "nf4"}
        layer = bnb.Linear4bit(inputs, outputs, **empty)  # type: ignore[no-untyped-call]
        held = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer)
    else:
        layer = bnb.Linear8bitLt(inputs, outputs, has_fp16_weights=False, threshold=OUTLIERS, **empty)
        held = bnb.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer.weight = held.to(device)
    quantized: nn.Module = layer.eval()
    return quantized


def is_quantizable(model: Any, name: str) -> bool:
    """Whether the module of this name is a linear layer that can be quantized.

    The output head and layers that the architecture wants in float32 (``wo`` of T5) cannot.
    """
    module = model.get_submodule(name)
    kept = set(model._keep_in_fp32_modules or ()) & set(name.split("."))
    return type(module) is nn.Linear and module is not model.get_output_embeddings() and not kept


def mark_quantized(model: Any, precision: Precision) -> None:
    """Set the attributes by which peft and transformers see that the model is quantized."""
    from bitsandbytes.nn import modules as bnb  # noqa: PLC0415  (seconds)
    from transformers.utils.quantization_config import QuantizationMethod  # noqa: PLC0415  (seconds)

    model.is_loaded_in_4bit, model.is_loaded_in_8bit = precision == "nf4", precision == "int8"
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    for module in model.modules():
        if isinstance(module, bnb.Linear4bit):
            # On a CPU with AVX512-BF16, bitsandbytes repacks the weights at the first evaluation, computes in
            # bfloat16 from then on, and rounds again when it goes back to training, which would use other weights.
            module.support_avx512bf16_for_cpu = False
    # On a CPU it warns at every layer of every step that inputs are cast.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def _place(model: PreTrainedModel, name: str, weight: torch.Tensor, precision: Precision, device: str) -> None:
    """Put a float32 weight into the model, converted to its final type."""
    owner, _, kind = name.rpartition(".")
    if precision.quantized and kind == "weight" and is_quantizable(model, owner):
        bias = model.get_submodule(owner).bias
        layer = quantized_linear(weight, precision, device)
        layer.bias = bias  # a place for the one that the file has elsewhere
        model.set_submodule(owner, layer)
        return
    dense = nn.Parameter(weight.to(device=device, dtype=_dense_type(precision, device)), requires_grad=False)
    setattr(model.get_submodule(owner), kind, dense)


def _dense_type(precision: Precision, device: str) -> torch.dtype:
    """Return the type of weights that are not quantized."""
    if precision.quantized:
        return compute_type(device)
    return torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32


def _ready(model: Any, precision: Precision, device: str) -> PreTrainedModel:
    if precision.quantized:
        mark_quantized(model, precision)
    else:
        model.to(device)
    ready: PreTrainedModel = model.eval().requires_grad_(False)
    return ready


def _return_freed_memory() -> None:
    """Return the memory that loading freed to the system: glibc keeps up to 0.9 GB between the quantized weights."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _described(stored: str, precision: Precision) -> str:
    return f"{stored}, {precision}" if precision is not Precision.FLOAT32 else stored
