"""A run goes on only as it was begun, and strategies may be added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peft_core.errors import Conflict
from peft_evaluation.journal import EvaluationIdentity, StrategyIdentity, begin_run, read_identity


def identity(**changes: Any) -> EvaluationIdentity:
    facts: dict[str, Any] = {
        "command": "evaluate",
        "data": "conala",
        "part": "test",
        "data_digest": "d",
        "model": "tiny",
        "model_sha256": "0" * 64,
        "engine": "torch",
        "precision": "float32",
        "formats": "qwen-fim-v1, instruct-v1",
        "decoding": {"decoding": "greedy"},
        "max_tokens": 64,
        "context_tokens": 4096,
        "strategies": {"zero-shot": StrategyIdentity((0,), {})},
    }
    return EvaluationIdentity(**(facts | changes))


def test_a_run_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    begin_run(tmp_path / "r", identity(), resume=False)
    with pytest.raises(Conflict, match="--resume"):
        begin_run(tmp_path / "r", identity(), resume=False)
    assert begin_run(tmp_path / "r", identity(), resume=True) == read_identity(tmp_path / "r") == identity()


def test_strategies_are_added(tmp_path: Path) -> None:
    begin_run(tmp_path, identity(), resume=False)
    more = begin_run(tmp_path, identity(command="more", strategies={"icl-3": StrategyIdentity((1,), {})}), resume=True)
    assert list(more.strategies) == ["zero-shot", "icl-3"]
    assert more.command == "evaluate"
    assert read_identity(tmp_path) == more


@pytest.mark.parametrize(
    "changed",
    [
        {"data_digest": "e"},
        {"model_sha256": "1" * 64},
        {"decoding": {"decoding": "5 samples"}},
        {"max_tokens": 65},
        {"precision": "nf4"},
    ],
)
def test_what_decides_answers_may_not_change(tmp_path: Path, changed: dict[str, Any]) -> None:
    begin_run(tmp_path, identity(), resume=False)
    with pytest.raises(Conflict, match=next(iter(changed))):
        begin_run(tmp_path, identity(**changed), resume=True)
    assert read_identity(tmp_path) == identity()


def test_a_run_of_an_earlier_version_that_did_not_record_the_precision_goes_on(tmp_path: Path) -> None:
    begin_run(tmp_path, identity(precision=""), resume=False)
    assert begin_run(tmp_path, identity(), resume=True).precision == "float32"


def test_nor_a_strategy_such_as_an_adapter_of_the_same_name(tmp_path: Path) -> None:
    before = identity(strategies={"adapter:mine": StrategyIdentity((0,), {"adapter": "mine aaaa"})})
    begin_run(tmp_path, before, resume=False)
    with pytest.raises(Conflict, match="adapter:mine was"):
        begin_run(
            tmp_path,
            identity(strategies={"adapter:mine": StrategyIdentity((0,), {"adapter": "mine bbbb"})}),
            resume=True,
        )


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(Conflict, match=r"run\.json"):
        begin_run(tmp_path, identity(), resume=True)
