"""Every way an adapter can be wrong, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from peft_core.api_types import Task
from peft_core.errors import Conflict, InvalidInput, NotFound, PeftDaemonError, TooLarge
from peft_core.status_types import TORCH
from peft_daemon.adapters import peft_files, validation
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import HIDDEN, lora, peft_config, peft_tensors, write_peft

Q = "model.layers.0.self_attn.q_proj"
KEY = f"base_model.model.{Q}"


def tensors(folder: Path, **changes: Any) -> None:
    """Write the fitting tensors with some replaced, added, or (None) left out."""
    wanted = peft_tensors(lora()) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({n: t for n, t in wanted.items() if t is not None}, folder / peft_files.WEIGHTS_FILE)


def config(folder: Path, **changes: Any) -> None:
    (folder / peft_files.CONFIG_FILE).write_text(json.dumps(peft_config(**changes)), encoding="utf-8")


def record(folder: Path, **fields: Any) -> None:
    (folder / peft_files.RECORD_FILE).write_text(json.dumps(fields), encoding="utf-8")


def array(*shape: int, dtype: Any = np.float32, fill: float = 0.1) -> Any:
    return np.full(shape, fill, dtype)


def linked_to_itself(folder: Path) -> None:
    (folder / peft_files.RECORD_FILE).unlink(missing_ok=True)
    (folder / peft_files.RECORD_FILE).symlink_to(folder / peft_files.RECORD_FILE)


def linked_outside(folder: Path) -> None:
    outside = folder.parent / "elsewhere.safetensors"
    (folder / peft_files.WEIGHTS_FILE).rename(outside)
    (folder / peft_files.WEIGHTS_FILE).symlink_to(outside)


def oversized(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with (folder / name).open("r+b" if (folder / name).exists() else "wb") as file:
            file.truncate(peft_files.MAX_FILE_BYTES[name] + 1)  # sparse: no bytes are written

    return make


@dataclass(frozen=True)
class Case:
    name: str
    spoil: Callable[[Path], object]
    error: type[PeftDaemonError]
    says: str


CASES = [
    Case("no config", lambda f: (f / peft_files.CONFIG_FILE).unlink(), NotFound, "holds no adapter_config.json"),
    Case(
        "no weights", lambda f: (f / peft_files.WEIGHTS_FILE).unlink(), NotFound, "holds no adapter_model.safetensors"
    ),
    Case(
        "pickle instead",
        lambda f: (f / peft_files.WEIGHTS_FILE).rename(f / "adapter_model.bin"),
        InvalidInput,
        "adapter_model.bin is a pickle",
    ),
    Case("link to itself", linked_to_itself, InvalidInput, "cannot read"),
    Case("link out of the folder", linked_outside, InvalidInput, "leads out of its folder"),
    Case("oversized config", oversized(peft_files.CONFIG_FILE), TooLarge, "the limit is 1,000,000"),
    Case("oversized weights", oversized(peft_files.WEIGHTS_FILE), TooLarge, "the limit is 1,073,741,824"),
    Case("oversized record", oversized(peft_files.RECORD_FILE), TooLarge, "peft-daemon.json"),
    Case(
        "weights are a folder",
        lambda f: ((f / peft_files.WEIGHTS_FILE).unlink(), (f / peft_files.WEIGHTS_FILE).mkdir()),
        InvalidInput,
        "adapter_model.safetensors",
    ),
    Case(
        "config is no json", lambda f: (f / peft_files.CONFIG_FILE).write_text("{"), InvalidInput, "not a JSON object"
    ),
    Case("unknown key", lambda f: config(f, run_this="x"), InvalidInput, "unknown key 'run_this'"),
    Case(
        "a whole model",
        lambda f: (
            (f / peft_files.CONFIG_FILE).rename(f / "config.json")
            and (f / peft_files.WEIGHTS_FILE).rename(f / "model.safetensors")
        ),
        NotFound,
        "it holds a whole model",
    ),
    Case("another method", lambda f: config(f, peft_type="VERA"), InvalidInput, "known types are LORA, IA3, PROMPT_"),
    Case("no method", lambda f: config(f, peft_type=["LORA"]), InvalidInput, "peft_type is ['LORA']"),
    Case("a LoRA that says it is IA3", lambda f: config(f, peft_type="IA3"), InvalidInput, "unknown key"),
    Case("dora without magnitudes", lambda f: config(f, use_dora=True), InvalidInput, "has no lora_magnitude_vector"),
    Case(
        "magnitudes without dora",
        lambda f: tensors(f, **{f"{KEY}.lora_magnitude_vector": array(64)}),
        InvalidInput,
        f"unknown tensor '{KEY}.lora_magnitude_vector'",
    ),
    Case("biases", lambda f: config(f, bias="lora_only"), InvalidInput, "'bias' is on"),
    Case("saved modules", lambda f: config(f, modules_to_save=["lm_head"]), InvalidInput, "'modules_to_save' is on"),
    Case("truncated weights", lambda f: os.truncate(f / peft_files.WEIGHTS_FILE, 3000), InvalidInput, "not a whole"),
    Case("weights are text", lambda f: (f / peft_files.WEIGHTS_FILE).write_text("hi"), InvalidInput, "not a whole"),
    Case("no tensors", lambda f: save_file({}, f / peft_files.WEIGHTS_FILE), InvalidInput, "has no tensors"),
    Case(
        "all zero",
        lambda f: write_peft(f, {name: (a, b * 0) for name, (a, b) in lora().items()}),
        InvalidInput,
        "changes nothing",
    ),
    Case("no lora_B", lambda f: tensors(f, **{f"{KEY}.lora_B.weight": None}), InvalidInput, f"'{Q}' has no lora_B"),
    Case("no lora_A", lambda f: tensors(f, **{f"{KEY}.lora_A.weight": None}), InvalidInput, f"'{Q}' has no lora_A"),
    Case(
        "unknown tensor",
        lambda f: tensors(f, **{"base_model.model.lm_head.weight": array(3)}),
        InvalidInput,
        "unknown tensor 'base_model.model.lm_head.weight'",
    ),
    Case(
        "embedding factors",
        lambda f: tensors(f, **{"base_model.model.model.embed_tokens.lora_embedding_A": array(4, 4)}),
        InvalidInput,
        "unknown tensor 'base_model.model.model.embed_tokens.lora_embedding_A'",
    ),
    Case(
        "wrong rank in one tensor",
        lambda f: tensors(f, **{f"{KEY}.lora_A.weight": array(5, HIDDEN)}),
        InvalidInput,
        "do not multiply",
    ),
    Case("another rank than the config", lambda f: config(f, r=8), InvalidInput, "adapter_config.json says 8"),
    Case(
        "three dimensions",
        lambda f: tensors(f, **{f"{KEY}.lora_A.weight": array(4, 8, 8)}),
        InvalidInput,
        "do not multiply",
    ),
    Case(
        "integers",
        lambda f: tensors(f, **{f"{KEY}.lora_A.weight": array(4, HIDDEN, dtype=np.int32)}),
        InvalidInput,
        "I32",
    ),
    Case(
        "float64",
        lambda f: tensors(f, **{f"{KEY}.lora_A.weight": array(4, HIDDEN, dtype=np.float64)}),
        InvalidInput,
        "F64",
    ),
    Case("nan", lambda f: tensors(f, **{f"{KEY}.lora_A.weight": array(4, HIDDEN, fill=np.nan)}), InvalidInput, "NaN"),
    Case("infinity", lambda f: tensors(f, **{f"{KEY}.lora_B.weight": array(64, 4, fill=np.inf)}), InvalidInput, "NaN"),
    Case("record is no json", lambda f: (f / peft_files.RECORD_FILE).write_text("]"), InvalidInput, "peft-daemon.json"),
    Case("record with a bad digest", lambda f: record(f, base_sha256="../x"), InvalidInput, "peft-daemon.json"),
    Case(
        "trained on another file",
        lambda f: record(f, base="other-model", base_sha256="a" * 64),
        Conflict,
        "was trained on other-model (aaaaaaaaaaaa), not on tiny",
    ),
    Case(
        "trained on another family",
        lambda f: config(f, base_model_name_or_path="Qwen/Qwen2.5-0.5B"),
        Conflict,
        "was trained on Qwen/Qwen2.5-0.5B, not on Tiny Coder",
    ),
    Case(
        "a layer the base does not have",
        lambda f: write_peft(f, {"model.layers.7.mlp.up_proj": lora()["model.layers.0.mlp.up_proj"]}),
        Conflict,
        "has no linear layer 'model.layers.7.mlp.up_proj'",
    ),
    Case(
        "a module of another architecture",
        lambda f: write_peft(f, {"transformer.h.0.attn.c_attn": lora()[Q]}),
        Conflict,
        "has no linear layer 'transformer.h.0.attn.c_attn'",
    ),
    Case(
        "another width",
        lambda f: write_peft(f, {Q: (array(4, 32), array(64, 4))}),
        Conflict,
        "maps 32 to 64 values, in tiny it maps 64 to 64",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_adapter_is_refused_and_nothing_is_stored(
    registry: AdapterRegistry, base: BaseModel, peft: Path, tmp_path: Path, case: Case
) -> None:
    case.spoil(peft)
    with pytest.raises(case.error) as caught:
        registry.import_(peft, name="mine", task=Task.FILL, base=base)
    assert case.says in caught.value.line
    assert registry.list_adapters() == []
    assert sorted(entry.name for entry in (tmp_path / "registry").rglob("*") if entry.is_file()) == [".lock"]


LEFT_BY_TRAINERS = (
    *("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "trainer_state.json"),
    *("tokenizer.json", "README.md", "X.PKL", "global_step500/mp_rank_00_model_states.pt"),
)


def test_what_a_trainer_leaves_beside_the_adapter_is_neither_read_nor_stored(
    registry: AdapterRegistry, base: BaseModel, peft: Path
) -> None:
    for name in LEFT_BY_TRAINERS:
        (peft / name).parent.mkdir(exist_ok=True)
        os.mkfifo(peft / name) if name == "optimizer.pt" and sys.platform != "win32" else (peft / name).touch()
    notices: list[str] = []
    manifest = registry.import_(peft, name="mine", base=base, on_notice=notices.append)
    assert notices == []
    stored = registry.lease(manifest, engine=TORCH).path
    assert {entry.name for entry in stored.iterdir()} == {peft_files.CONFIG_FILE, peft_files.WEIGHTS_FILE}


def test_pickled_weights_beside_the_safetensors_are_ignored_and_named(
    registry: AdapterRegistry, base: BaseModel, peft: Path
) -> None:
    (peft / "adapter_model.bin").write_bytes(b"cos\nabort\n(tR.")
    notices: list[str] = []
    registry.import_(peft, name="mine", base=base, on_notice=notices.append)
    assert notices == ["Ignored adapter_model.bin: the weights are those of adapter_model.safetensors beside it"]


@pytest.mark.parametrize("key", ["auto_mapping", "auto_map"])
def test_names_of_code_are_ignored_and_are_not_in_what_is_stored(
    registry: AdapterRegistry, base: BaseModel, peft: Path, tmp_path: Path, key: str
) -> None:
    plain = registry.import_(peft, name="plain", base=base)
    registry.remove("plain")
    config(peft, **{key: {"parent_library": "evil", "base_model_class": "Evil"}, "from_tomorrow": None})
    notices: list[str] = []
    manifest = registry.import_(peft, name="mine", base=base, on_notice=notices.append)
    assert manifest.digest == plain.digest
    assert len(notices) == 1 and f"{key} (names Python code" in notices[0] and "from_tomorrow (unknown)" in notices[0]
    stored = json.loads((registry.export("mine", tmp_path / "out", "peft") / peft_files.CONFIG_FILE).read_bytes())
    assert stored == {name: value for name, value in peft_config().items() if name != key}


def test_a_config_without_anything_to_ignore_is_stored_as_it_is(
    registry: AdapterRegistry, base: BaseModel, peft: Path, tmp_path: Path
) -> None:
    registry.import_(peft, name="mine", base=base)
    stored = registry.export("mine", tmp_path / "out", "peft") / peft_files.CONFIG_FILE
    assert stored.read_bytes() == (peft / peft_files.CONFIG_FILE).read_bytes()


@pytest.mark.parametrize("inner", ["checkpoint-500", "default", "mine"])
def test_the_only_adapter_in_a_folder_is_found(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path, inner: str
) -> None:
    folder = write_peft(tmp_path / "run" / inner)
    notices: list[str] = []
    registry.import_(tmp_path / "run", name="mine", base=base, on_notice=notices.append)
    assert notices == [f"The adapter is in {folder}"]


def test_of_several_adapters_in_a_folder_one_has_to_be_chosen(
    registry: AdapterRegistry, base: BaseModel, tmp_path: Path
) -> None:
    for step in (1000, 500):
        write_peft(tmp_path / "run" / f"checkpoint-{step}")
    with pytest.raises(InvalidInput, match="holds 2 adapters") as caught:
        registry.import_(tmp_path / "run", name="mine", base=base)
    assert caught.value.fix == f"Give the folder of one of them, for example {tmp_path / 'run' / 'checkpoint-1000'}"


def test_the_adapter_of_the_folder_itself_goes_before_those_in_it(
    registry: AdapterRegistry, base: BaseModel, peft: Path
) -> None:
    write_peft(peft / "checkpoint-500", lora(seed=9))
    notices: list[str] = []
    registry.import_(peft, name="mine", base=base, on_notice=notices.append)
    assert notices == []


def test_a_link_to_an_adapter_elsewhere_is_not_followed(
    registry: AdapterRegistry, base: BaseModel, peft: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "default").symlink_to(peft)
    with pytest.raises(NotFound, match=r"holds no adapter_config\.json"):
        registry.import_(tmp_path / "run", name="mine", base=base)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_named_pipe_does_not_block_the_import(registry: AdapterRegistry, base: BaseModel, peft: Path) -> None:
    (peft / peft_files.WEIGHTS_FILE).unlink()
    os.mkfifo(peft / peft_files.WEIGHTS_FILE)
    with pytest.raises(InvalidInput, match="not a regular file"):
        registry.import_(peft, name="mine", base=base)


def test_a_link_within_the_folder_is_followed(registry: AdapterRegistry, base: BaseModel, peft: Path) -> None:
    (peft / peft_files.WEIGHTS_FILE).rename(peft / "weights.safetensors")
    (peft / peft_files.WEIGHTS_FILE).symlink_to("weights.safetensors")
    assert registry.import_(peft, name="mine", base=base).modules == len(lora())


def test_a_base_of_an_unknown_architecture_is_refused(registry: AdapterRegistry, peft: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InvalidInput, match="architecture 'gpt2'"):
        registry.import_(peft, name="mine", base=BaseModel("other", "0" * 64, tmp_path / "other.gguf"))


@pytest.mark.parametrize(
    "hint", ["", "/models/anything", "./local", "C:\\models\\x", "some-name", "org/tiny-coder-0.5B-Instruct-bnb-4bit"]
)
def test_a_hint_that_fits_or_says_nothing_is_accepted(
    registry: AdapterRegistry, base: BaseModel, peft: Path, hint: str
) -> None:
    config(peft, base_model_name_or_path=hint)
    assert registry.import_(peft, name="mine", base=base).base == "tiny"


def test_a_record_of_the_same_file_outweighs_the_hint(registry: AdapterRegistry, base: BaseModel, peft: Path) -> None:
    config(peft, base_model_name_or_path="someone/renamed-it")
    record(peft, base="tiny", base_sha256=base.sha256)
    assert registry.import_(peft, name="mine", base=base).base_sha256 == base.sha256


@pytest.mark.parametrize("architecture", sorted(validation.ARCHITECTURES))
def test_gguf_calls_the_linear_layers_what_we_call_them(architecture: str) -> None:
    enum = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(enum, 3)
    modules = ["lm_head", *(f"model.layers.{i}.{kind}" for i in range(3) for kind in validation.LINEAR_LAYERS)]
    assert [validation.gguf_weight(m) for m in modules] == [f"{names.get_name(m)}.weight" for m in modules]


@pytest.mark.parametrize(
    "module", ["", "lm_head.x", "model.layers.00.mlp.up_proj", "model.layers.0.mlp.up_proj\n", "model.embed_tokens"]
)
def test_nothing_else_is_a_linear_layer(module: str) -> None:
    assert validation.gguf_weight(module) == ""
