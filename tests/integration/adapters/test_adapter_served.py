"""llama.cpp with an exported adapter computes what the base with merged weights computes.

Two ways to the same numbers: W plus the adapter llama.cpp applies, and a file whose weights are W + scale * B A,
merged in Hugging Face's layout. Orientation, scale and row order are right only if they agree.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from peft_daemon.adapters.registry import AdapterRegistry
from support.lora_server import Token, serve
from support.synthetic_adapter import TinyModel, lora, peft_config, write_peft

PROMPT = list(range(30, 70))
CLOSE = 0.01
"""Of log-probabilities; what differs between the two ways is float32 rounding."""

ALL = tuple(lora())
UP = "model.layers.1.mlp.up_proj"
CASES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "alpha over rank": ({"lora_alpha": 6}, dict.fromkeys(ALL, 6 / 4)),
    "rank-stabilized": ({"lora_alpha": 3, "use_rslora": True}, dict.fromkeys(ALL, 3 / sqrt(4))),
    "its own alpha for one module": (
        {"lora_alpha": 6, "alpha_pattern": {"layers.1.mlp.up_proj": 2}},
        dict.fromkeys(ALL, 6 / 4) | {UP: 2 / 4},
    ),
    "output layer": ({"lora_alpha": 6}, {"lm_head": 6 / 4, UP: 6 / 4}),
}


def assert_same(one: list[Token], other: list[Token]) -> None:
    assert [token.id for token in one] == [token.id for token in other]
    for a, b in zip(one, other, strict=True):
        common = a.top.keys() & b.top.keys()
        assert len(common) >= len(a.top) - 2, "near the end of the list, ranks may swap"
        assert max(abs(a.top[token] - b.top[token]) for token in common) < CLOSE


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_base_and_adapter_equal_merged_weights(tmp_path: Path, architecture: str, case: str) -> None:
    config, scales = CASES[case]
    modules = lora(rank=4, modules=tuple(scales))
    model = TinyModel.random(architecture)
    merged = model.with_deltas({name: scales[name] * (b @ a) for name, (a, b) in modules.items()})
    base, merged_base = model.write(tmp_path / "base.gguf"), merged.write(tmp_path / "merged.gguf")
    registry = AdapterRegistry(tmp_path / "registry")
    folder = write_peft(tmp_path / "peft", modules, config=peft_config(**config))
    lease = registry.lease(registry.import_(folder, name="mine", base=base))
    with serve(base.path, [lease.path]) as server:
        applied, off, unmentioned = (server.tokens(PROMPT, scales) for scales in ([1.0], [0.0], []))
    with serve(merged_base.path) as server:
        expected = server.tokens(PROMPT)
    with serve(base.path) as server:
        plain = server.tokens(PROMPT)
    assert_same(applied, expected)
    assert off == plain
    assert unmentioned == plain
    assert [token.id for token in expected] != [token.id for token in plain], "the case must make a difference"


def test_llama_and_qwen_layouts_of_one_model_and_one_adapter_agree(tmp_path: Path) -> None:
    """The two architectures differ here only in the order of rotary pairs, so equal weights give equal outputs."""
    answers = []
    for architecture in ("qwen2", "llama"):
        base = TinyModel.random(architecture).write(tmp_path / f"{architecture}.gguf")
        registry = AdapterRegistry(tmp_path / architecture)
        manifest = registry.import_(write_peft(tmp_path / "peft"), name="mine", base=base)
        with serve(base.path, [registry.lease(manifest).path]) as server:
            answers.append(server.tokens(PROMPT, [1.0]))
    assert_same(*answers)


def test_half_the_scale_is_half_the_adapter_and_two_adapters_do_not_mix(tmp_path: Path) -> None:
    model = TinyModel.random()
    base = model.write(tmp_path / "base.gguf")
    registry = AdapterRegistry(tmp_path / "registry")
    adapters = [lora(seed=seed) for seed in (1, 50)]
    paths = [
        registry.lease(registry.import_(write_peft(tmp_path / f"peft{i}", modules), name=f"adapter{i}", base=base)).path
        for i, modules in enumerate(adapters)
    ]
    strengths = [(0, 0.5), (1, 1.0)]
    with serve(base.path, paths) as server:
        served = [server.tokens(PROMPT, [scale if j == i else 0.0 for j in range(2)]) for i, scale in strengths]
    for (i, scale), answer in zip(strengths, served, strict=True):
        merged = model.with_deltas({name: scale * 8 / 4 * (b @ a) for name, (a, b) in adapters[i].items()})
        with serve(merged.write(tmp_path / f"merged{i}.gguf").path) as server:
            assert_same(answer, server.tokens(PROMPT))
