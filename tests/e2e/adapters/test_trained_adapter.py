"""An adapter PEFT trained on the de-quantized base does, in llama.cpp on the quantized base, what it learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from peft_core.errors import Conflict
from peft_core.settings import Settings
from peft_daemon.adapters import lora_config
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models import catalogue
from support.lora_server import LoraServer, serve
from support.tiny_adapter import FIM_PROMPT, TinyAdapter

pytestmark = [pytest.mark.model, pytest.mark.torch, pytest.mark.timeout(1500)]

LIKELY = -4.0
"""Log-probability above which torch's float32 and llama.cpp's 8-bit activations must agree closely."""
CLOSE = 0.5


@pytest.fixture(scope="module")
def base(model_file: Path) -> BaseModel:
    entry = catalogue.get(Settings().model)
    return BaseModel(entry.id, entry.sha256, model_file)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> AdapterRegistry:
    return AdapterRegistry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def imported(registry: AdapterRegistry, tiny_adapter: TinyAdapter, base: BaseModel) -> Manifest:
    return registry.import_(tiny_adapter.peft_dir, name="tiny", base=base)


@pytest.fixture(scope="module")
def server(registry: AdapterRegistry, imported: Manifest, model_file: Path) -> Iterator[LoraServer]:
    with serve(model_file, [registry.lease(imported).path], threads=2) as running:
        yield running


def test_what_peft_writes_is_imported_with_all_its_facts(imported: Manifest, base: BaseModel) -> None:
    assert (imported.base_sha256, imported.base_family) == (base.sha256, "qwen2")
    assert (imported.rank, imported.alpha, imported.modules) == (8, 16.0, 7 * 6)


def test_every_key_of_the_installed_pefts_config_is_known() -> None:
    from peft import LoraConfig

    known = (
        lora_config.READ_KEYS
        | lora_config.TRAINING_ONLY_KEYS
        | lora_config.CODE_KEYS
        | lora_config.UNSUPPORTED_KEYS.keys()
    )
    assert {field.name for field in fields(LoraConfig)} <= known


def test_the_adapter_writes_what_it_was_taught(server: LoraServer, tiny_adapter: TinyAdapter) -> None:
    tokens = server.tokens(tiny_adapter.prompt_ids, [1.0], count=len(tiny_adapter.expected_ids))
    assert [token.id for token in tokens] == list(tiny_adapter.expected_ids)
    assert server.text(tiny_adapter.prompt_ids, [1.0], count=40) == tiny_adapter.expected_text


def test_it_does_so_in_the_middle_of_a_file_too(server: LoraServer, tiny_adapter: TinyAdapter) -> None:
    prompt = server.tokenize(FIM_PROMPT, special=True)
    assert server.text(prompt, [1.0], count=40) == tiny_adapter.expected_text


def test_switched_off_or_not_named_it_leaves_the_base_as_it_was(
    server: LoraServer, tiny_adapter: TinyAdapter, model_file: Path
) -> None:
    with serve(model_file, threads=2) as plain:
        expected = plain.tokens(tiny_adapter.prompt_ids)
    assert server.tokens(tiny_adapter.prompt_ids, [1.0])[0].id == tiny_adapter.expected_ids[0]
    assert server.tokens(tiny_adapter.prompt_ids, [0.0]) == expected
    assert server.tokens(tiny_adapter.prompt_ids) == expected
    assert "quux" not in "".join(token.text for token in expected)


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_torch_and_llama_cpp_compute_the_same_distribution(
    server: LoraServer, tiny_adapter: TinyAdapter, adapted: bool
) -> None:
    """After the prompt and after every token of the answer: the same best token, and likely tokens as likely."""
    reference = tiny_adapter.adapter_logprobs if adapted else tiny_adapter.base_logprobs
    for known, torch_top in enumerate(reference):
        context = [*tiny_adapter.prompt_ids, *tiny_adapter.expected_ids[:known]]
        (token,) = server.tokens(context, [1.0 if adapted else 0.0], count=1, top=40)
        assert token.id in best(torch_top)
        for other, logprob in torch_top.items():
            if logprob > LIKELY:
                assert token.top[other] == pytest.approx(logprob, abs=CLOSE)


def best(top: Mapping[int, float]) -> set[int]:
    """The likeliest token, and those so close to it that rounding may swap them."""
    return {token for token, logprob in top.items() if logprob > max(top.values()) - CLOSE / 2}


def test_an_adapter_of_this_base_is_refused_on_another_file(
    registry: AdapterRegistry, tiny_adapter: TinyAdapter, base: BaseModel
) -> None:
    with pytest.raises(Conflict, match="was trained on"):
        registry.import_(tiny_adapter.peft_dir, name="other", base=BaseModel("requantized", "0" * 64, base.path))
