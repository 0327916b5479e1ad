"""The typing benchmark on the real model: every policy types a line, and the command reports it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from peft_evaluation.typing.policies.base import Engine
from peft_evaluation.typing.policies.catalogue import POLICIES
from peft_evaluation.typing.replaying import replay
from support.typed_file import short_trace

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", POLICIES)
async def test_a_policy_suggests_the_line_that_is_missing(name: str, model_file: Path, tmp_path: Path) -> None:
    engine = Engine(model_file.parent.name, model_file, 1)
    trace = short_trace(tmp_path, keys=30, wait_s=0.05)
    found = await replay(trace, name, lambda workspace: POLICIES[name].open(engine, workspace), lambda *_: None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    last = found.keystrokes[-1]
    assert last.shown_ms is not None, found
    assert last.text.startswith("return first"), last
    assert last.judged.right > 0
    assert found.totals.cpu_s > 0
    assert (found.totals.prompt_evaluated or 0) > 0
    assert (found.totals.decoded or 0) > 0
