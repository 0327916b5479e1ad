"""What an adapter_config.json means, and which keys are refused."""

from __future__ import annotations

import json
from math import sqrt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_daemon.adapters import lora_config
from support.synthetic_adapter import peft_config


def parse(**changes: Any) -> lora_config.LoraConfig:
    return lora_config.parse_lora_config(json.dumps(peft_config(**changes)).encode())


def test_every_key_peft_writes_is_known() -> None:
    assert peft_config().keys() <= lora_config.KNOWN_KEYS | lora_config.CODE_KEYS


def test_the_scale_is_alpha_over_rank() -> None:
    assert parse(r=16, lora_alpha=24).scale_of("model.layers.0.mlp.up_proj") == 24 / 16


def test_rank_stabilized_lora_divides_by_the_root_of_the_rank() -> None:
    assert parse(r=16, lora_alpha=24, use_rslora=True).scale_of("model.layers.0.mlp.up_proj") == 24 / sqrt(16)


def test_patterns_override_rank_and_alpha_of_the_modules_they_name() -> None:
    config = parse(
        r=4, lora_alpha=8, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 32, "up_proj": 3}
    )
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 8 / 2
    assert config.scale_of("model.layers.1.self_attn.q_proj") == 32 / 2
    assert config.scale_of("model.layers.1.mlp.up_proj") == 3 / 4
    assert config.scale_of("model.layers.1.mlp.down_proj") == 8 / 4


def test_a_pattern_names_whole_parts_of_a_module_name_only() -> None:
    assert parse(r=4, rank_pattern={"proj": 2}).rank_of("model.layers.0.self_attn.q_proj") == 4


@pytest.mark.parametrize(
    "start", [True, False, "gaussian", "eva", "orthogonal"], ids=["true", "false", "gaussian", "eva", "orthogonal"]
)
def test_initializations_that_leave_the_base_alone_are_accepted(start: bool | str) -> None:
    assert parse(init_lora_weights=start).rank == 4


SWITCHED_ON: dict[str, Any] = {
    "bias": "all",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "fan_in_fan_out": True,
    "alora_invocation_tokens": [1],
    "layer_replication": [[0, 2]],
    "target_parameters": ["experts.w"],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 1},
    "kasa_config": {"beta": 1},
    "monteclora_config": {"x": 1},
    "velora_config": {"x": 1},
    "megatron_config": {"x": 1},
}


@pytest.mark.parametrize("key", lora_config.UNSUPPORTED_KEYS)
def test_a_feature_no_engine_serves_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidInput, match=f"'{key}' is on") as caught:
        parse(**{key: SWITCHED_ON[key]})
    assert "`peft-daemon models add FOLDER`" in caught.value.fix, "the advice leads somewhere"


def test_dora_is_read_as_what_it_is() -> None:
    assert parse(use_dora=True).dora and not parse().dora


@pytest.mark.parametrize("key", ["auto_mapping", "auto_map"])
def test_a_name_of_code_to_import_changes_nothing(key: str) -> None:
    assert parse(**{key: {"parent_library": "evil"}}) == parse()


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica", "x", 1])
def test_an_initialization_that_changes_the_base_is_refused(start: object) -> None:
    with pytest.raises(InvalidInput, match="init_lora_weights"):
        parse(init_lora_weights=start)


@pytest.mark.parametrize("key", ["evil", "Use_dora", "r ", "", "quantization_config"])
@pytest.mark.parametrize("value", [True, 16, "x", [1], {"a": None}], ids=repr)
def test_an_unknown_key_that_is_set_is_refused_by_name_and_value(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"unknown key '{key}'") as caught:
        parse(**{key: value})
    assert json.dumps(value, separators=(",", ":")) in caught.value.what and f"delete '{key}'" in caught.value.fix


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}], ids=repr)
def test_an_unknown_key_that_is_off_changes_nothing(value: object) -> None:
    assert parse(of_the_next_peft=value) == parse()


@pytest.mark.parametrize("method", ["IA3", "PREFIX_TUNING", "lora", None, 3])
def test_the_config_of_another_method_is_no_lora(method: object) -> None:
    with pytest.raises(InvalidInput, match="peft_type"):
        parse(peft_type=method)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0),
        ("r", -1),
        ("r", 1.5),
        ("r", True),
        ("r", None),
        ("r", 1 << 20),
        ("lora_alpha", 0),
        ("lora_alpha", -8),
        ("lora_alpha", "8"),
        ("lora_alpha", None),
        ("lora_alpha", 1e300),
        ("use_rslora", "yes"),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {"q_proj": 0}),
        ("alpha_pattern", {"(a+)+$": 1}),
        ("rank_pattern", {".*": 2}),
    ],
)
def test_a_number_or_pattern_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=key):
        parse(**{key: value})


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000, b'{"r": NaN}'])
def test_text_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a JSON object"):
        lora_config.parse_lora_config(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(peft_config())), value=json_values)
def test_any_value_of_any_key_gives_a_usable_config_or_an_expected_error(key: str, value: object) -> None:
    try:
        config = lora_config.parse_lora_config(msgspec.json.encode(peft_config(**{key: value})))
    except PeftDaemonError:
        return
    assert config.scale_of("model.layers.0.self_attn.q_proj") > 0
    assert config.rank_of("model.layers.0.self_attn.q_proj") >= 1
