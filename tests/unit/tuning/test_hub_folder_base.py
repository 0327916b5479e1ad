"""A local folder of safetensors as a base: every family, dense and quantized; nothing but safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.tiny_models import FAMILIES, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.torch


def folder_of(family: str, folder: Path) -> Path:
    tiny_model(family).save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "nf4", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_and_computes_nearly_the_same(family: str, precision: str, tmp_path: Path) -> None:
    import torch

    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    base = load_hub_folder(folder_of(family, tmp_path), Precision(precision))
    tokens = torch.arange(2, 14)[None]
    inputs = {"input_ids": tokens, "labels": tokens}
    with torch.no_grad():
        ours, dense = base.model(**inputs).logits.float(), tiny_model(family)(**inputs).logits
    assert torch.equal(ours, dense) is (precision == "float32")
    assert torch.nn.functional.cosine_similarity(ours.flatten(), dense.flatten(), dim=0) > 0.9
    assert base.family.id == family
    assert not any(weight.requires_grad for weight in base.model.parameters())
    assert base.tokenizer("ab").input_ids == [65, 66]


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    from peft_core.errors import InvalidInput
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    folder = folder_of("qwen2", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match=r"pytorch_model\.bin.*run code"):
        load_hub_folder(folder, Precision.FLOAT32)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    from peft_core.errors import NotFound
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    with pytest.raises(NotFound, match="holds no config"):
        load_hub_folder(tmp_path, Precision.FLOAT32)
    with pytest.raises(NotFound, match="no folder"):
        load_hub_folder(tmp_path / "nowhere", Precision.FLOAT32)


def test_the_digest_names_the_weights(tmp_path: Path) -> None:
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    first = folder_of("qwen2", tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")
    tiny_model("qwen2", seed=1).save_pretrained(str(tmp_path / "c"))
    tiny_tokenizer().save_pretrained(str(tmp_path / "c"))
    digests = [load_hub_folder(tmp_path / name, Precision.FLOAT32).sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 48}, r"is \[32, 64\] in the file, and \[32, 48\] by the config"),
        ({"num_hidden_layers": 3}, r"the files have no model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"the config has no place for model\.layers\.1"),
        ({"num_attention_heads": "four"}, "cannot be loaded"),
        ({"hidden_act": "nothing"}, "cannot be loaded"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused_in_one_line(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    from peft_core.errors import InvalidInput
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    config = folder_of("llama", tmp_path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(InvalidInput, match=message) as caught:
        load_hub_folder(tmp_path, Precision.FLOAT32)
    assert "\n" not in caught.value.line
    assert "Fetch the folder again" in caught.value.fix


def test_a_config_cannot_name_code_to_fetch(tmp_path: Path) -> None:
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder

    config = folder_of("llama", tmp_path) / "config.json"
    own = {"attn_implementation": "somebody/kernel", "_attn_implementation_internal": "somebody/kernel"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    model = load_hub_folder(tmp_path, Precision.FLOAT32).model
    assert "somebody" not in str(model.config._attn_implementation)
