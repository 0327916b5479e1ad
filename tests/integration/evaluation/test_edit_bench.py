"""The benchmark of next edits with a real daemon that serves a tiny random model: report, interruption, refusals."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from peft_core.errors import Cancelled, Conflict, InvalidInput
from peft_evaluation.edit_benchmark import run
from peft_evaluation.edit_benchmark.policies import choose_edit_policies
from peft_evaluation.edit_benchmark.report import EDITS
from peft_evaluation.edit_benchmark.results import JournaledTrial
from peft_evaluation.edit_benchmark.run import Asking, EditBenchEvent, EditBenchRequest, bench_edits
from peft_evaluation.edit_benchmark.scenarios import EditAmount
from peft_tuning.installation import Installation
from support.edited_repository import edited_repository
from support.running_daemon import processes
from support.tiny_service import TinyService, tiny_service

pytestmark = pytest.mark.timeout(300)
POLICIES = ("ours", "adapter=base", "fill", "nothing")


@pytest_asyncio.fixture
async def service() -> AsyncIterator[TinyService]:
    async with tiny_service() as found:
        yield found


@pytest.fixture
def request_(tmp_path: Path) -> EditBenchRequest:
    return EditBenchRequest(
        folder=tmp_path / "run",
        policies=choose_edit_policies(POLICIES),
        amount=EditAmount(scenarios=4, commits=10),
        sources=(edited_repository(tmp_path / "shop"),),
        quick=True,
        command="peft-daemon bench edits",
    )


def installed(service: TinyService) -> Installation:
    return Installation(settings=service.settings, paths=service.paths)


async def benched(request: EditBenchRequest, service: TinyService) -> list[EditBenchEvent]:
    events: list[EditBenchEvent] = []
    await asyncio.to_thread(bench_edits, request, installed(service), events.append)
    return events


async def test_every_policy_is_asked_in_every_scenario_and_the_report_has_their_figures(
    request_: EditBenchRequest, service: TinyService
) -> None:
    events = await benched(request_, service)
    assert [each.done for each in events if isinstance(each, Asking)] == list(range(32))
    report = EDITS.read(request_.folder)
    assert len(report.scenarios) == 8
    assert {(each.policy, each.scenario) for each in report.trials} == {
        (policy, scenario.id) for policy in POLICIES for scenario in report.scenarios
    }
    assert report.edit_policies["nothing"].figures["quiet"].value == 1.0
    # The tiny model's context is too short for most of what it would be shown.
    assert set(report.edit_policies["adapter=base"].silences) <= {"refused", "broken", "unchanged", "reversal"}
    assert report.edit_policies["ours"].latency_p50_ms is not None
    assert report.edit_policies["fill"].latency_p50_ms is not None
    assert any("repositories" in note for note in report.notes)
    for name in ("edits.md", "edits.html"):
        assert "quiet rate" in (request_.folder / name).read_text(encoding="utf-8")


async def test_an_interrupted_run_goes_on_where_it_was_and_takes_further_policies(
    request_: EditBenchRequest, service: TinyService
) -> None:
    def interrupt(event: EditBenchEvent) -> None:
        if isinstance(event, Asking) and event.done == 5:
            raise KeyboardInterrupt

    journal = request_.folder / run.JOURNAL
    with pytest.raises(Cancelled, match="after 5 trials"):
        await asyncio.to_thread(bench_edits, request_, installed(service), interrupt)
    before = journal.read_bytes()
    assert before.count(b"\n") == 5
    with pytest.raises(Conflict, match="holds a run already"):
        await benched(request_, service)
    with pytest.raises(Conflict, match="other options"):
        await benched(replace(request_, resume=True, seed=1), service)

    one = replace(request_, resume=True, policies=choose_edit_policies(("nothing",)))
    await benched(one, service)
    notes = " ".join(EDITS.read(request_.folder).notes)
    assert "fill was asked in" in notes
    assert "nothing was asked in" not in notes
    await benched(replace(request_, resume=True), service)
    after = journal.read_bytes()
    assert after.startswith(before)
    trials = [msgspec.json.decode(line, type=JournaledTrial).trial for line in after.splitlines()]
    assert len({(each.policy, each.scenario) for each in trials}) == len(trials) == 32
    assert set(EDITS.read(request_.folder).edit_policies) == set(POLICIES)


async def test_a_folder_with_other_things_in_it_is_refused(request_: EditBenchRequest, service: TinyService) -> None:
    request_.folder.mkdir()
    (request_.folder / "mine").touch()
    with pytest.raises(InvalidInput, match="is not empty"):
        await benched(request_, service)


async def test_the_command_prints_each_event_as_a_line_and_leaves_no_daemon(
    request_: EditBenchRequest, service: TinyService
) -> None:
    command = [sys.executable, "-m", "peft_daemon", "bench", "edits", "--source", str(request_.sources[0]), "--quick"]
    options = ["--policy", "fill", "--limit", "2", "--output", str(request_.folder), "--json"]
    environment = {**os.environ, **service.variables, "TMPDIR": str(service.root)}
    done = await asyncio.to_thread(
        subprocess.run, [*command, *options], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["type"] for each in events] == ["loading", *["asking"] * 4, "reported"]
    assert events[-1]["folder"] == str(request_.folder)
    assert processes(service.root) == []
