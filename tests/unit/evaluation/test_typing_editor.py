"""The editor around a system: when it asks, cancels and shows; and a run that is interrupted and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from peft_cli.evaluation_view import print_typing_report
from peft_core.errors import Cancelled, Conflict, InvalidInput
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_evaluation.report import charts
from peft_evaluation.typing_benchmark import run
from peft_evaluation.typing_benchmark.figures import assemble
from peft_evaluation.typing_benchmark.policies.base import DocumentView, PolicyAnswer, ResourceUsage
from peft_evaluation.typing_benchmark.policies.catalogue import Policy
from peft_evaluation.typing_benchmark.replay import Replayed, TraceWorkspace, replay
from peft_evaluation.typing_benchmark.report import TYPING, html_report, markdown_report, write_report
from peft_evaluation.typing_benchmark.results import BenchReport
from peft_evaluation.typing_benchmark.screen import GhostText
from peft_evaluation.typing_benchmark.trace_maker import TraceAmount
from peft_evaluation.typing_benchmark.traces import TraceEdit
from peft_tuning.installation import Installation
from support.typed_file import short_trace


class Played:
    """A system that answers from a script: the text after what stands before the cursor."""

    def __init__(self, answers: Mapping[str, str], delay_s: float = 0.0) -> None:
        self.on_more: Callable[[], None] | None = None
        self.answers, self.delay_s = dict(answers), delay_s
        self.asked: list[str] = []
        self.cancelled = 0
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("start")

    async def stop(self) -> None:
        self.told.append("stop")

    def opened(self, view: DocumentView) -> None:
        self.told.append(f"open {view.file} {view.version}")

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        self.told.append("shown")

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        assert edit.applied(before.text) == view.text
        assert view.version == before.version + 1

    def moved(self, view: DocumentView) -> None:
        self.told.append("moved")

    def saved(self, view: DocumentView) -> None:
        self.told.append("saved")

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        line = view.text[: view.cursor].rsplit("\n", 1)[-1]
        self.asked.append(line)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        text = self.answers.get(line)
        return PolicyAnswer(None if text is None else GhostText(view.cursor, view.cursor, text), cached=False)

    async def totals(self) -> ResourceUsage:
        return ResourceUsage(requests=len(self.asked), prompt_evaluated=1, prompt_reused=0, decoded=1, cpu_s=0.1)


def played(trace_folder: Path, session: Played, *, keys: int, wait_s: float) -> Replayed:
    trace = short_trace(trace_folder, keys=keys, wait_s=wait_s)
    return asyncio.run(replay(trace, "played", lambda _: session, lambda *_: None))


def test_keystrokes_faster_than_the_editors_pause_ask_once(tmp_path: Path) -> None:
    session = Played({"def su": "btract(first, second):"})
    found = played(tmp_path, session, keys=7, wait_s=0.005)
    assert session.asked[-1] == "def su"
    assert len(session.asked) < 7
    assert session.told == ["start", "open sums.py 1", "moved", "stop"]
    assert all(each.shown_ms is not None for each in found.keystrokes)
    assert found.keystrokes[-1].judged.exact


def test_a_keystroke_cancels_the_request_before_it(tmp_path: Path) -> None:
    session = Played({"def su": "btract"}, delay_s=0.3)
    played(tmp_path, session, keys=7, wait_s=0.1)
    assert session.asked[-1] == "def su"
    assert session.cancelled == len(session.asked) - 1 >= 1


def test_ghost_text_stays_and_the_next_answer_does_not_replace_it(tmp_path: Path) -> None:
    session = Played({"def ": "subtract(first, second):", "def s": "um", "def su": "m"})
    found = played(tmp_path, session, keys=7, wait_s=0.3)
    assert [each.stayed for each in found.keystrokes[-2:]] == [True, True]
    assert found.keystrokes[-1].text == "btract(first, second):"


def test_an_answer_with_nothing_is_noted_as_one(tmp_path: Path) -> None:
    found = played(tmp_path, Played({}), keys=4, wait_s=0.12)
    last = found.keystrokes[-1]
    assert last.nothing
    assert last.shown_ms is None
    assert last.answered_ms is not None


def test_more_of_an_answer_is_asked_for_and_shown(tmp_path: Path) -> None:
    class Partial(Played):
        async def suggest(self, view: DocumentView) -> PolicyAnswer:
            answer = await super().suggest(view)
            if len(self.asked) == 1:
                self.answers["def"] = " subtract(first, second):"
                asyncio.get_running_loop().call_later(0.05, self.on_more or (lambda: None))
            return answer

    session = Partial({"def": " sub"})
    found = played(tmp_path, session, keys=4, wait_s=0.001)
    last = found.keystrokes[-1]
    assert session.asked == ["def", "def"]
    assert last.text == " subtract(first, second):"
    assert (last.full_ms or 0) > (last.shown_ms or 0)


def test_what_goes_wrong_in_a_request_ends_the_replay_and_the_system(tmp_path: Path) -> None:
    class Broken(Played):
        async def suggest(self, view: DocumentView) -> PolicyAnswer:
            raise InvalidInput("broken")

    session = Broken({})
    with pytest.raises(InvalidInput, match="broken"):
        played(tmp_path, session, keys=6, wait_s=0.1)
    assert session.told[-1] == "stop"


def test_the_workspace_has_the_files_as_they_were_before_and_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "other.py").write_text("x = 1\n")
    trace = short_trace(tmp_path, keys=3)
    (file,) = trace.files
    inside = msgspec.structs.replace(file, name="pack/sums.py")
    with TraceWorkspace(msgspec.structs.replace(trace, files=(inside,))) as workspace:
        assert workspace.read("pack/other.py") == "x = 1\n"
        assert workspace.read("pack/sums.py") == file.before != file.original
    assert not workspace.home.exists()


PLAYED = Policy("ours", "", False, lambda _e, _w: Played({"def ": "subtract"}))
RIVAL = Policy("llama.vscode", "", True, lambda _e, _w: Played({}))


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., run.BenchRequest]:
    monkeypatch.setattr(run, "make_traces", lambda _amount, seed, _sources: (short_trace(tmp_path, keys=5 + seed),))

    def made(**values: object) -> run.BenchRequest:
        given = {"policies": (PLAYED, RIVAL), "scenes": 0, "quick": True, **values}
        return run.BenchRequest(folder=tmp_path / "out", amount=TraceAmount(1, 1, 1), **given)  # type: ignore[arg-type]

    return made


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    from peft_daemon.adapters.validation import BaseModel

    monkeypatch.setattr(Installation, "base", BaseModel("tiny", "0" * 64, tmp_path / "models" / "tiny" / "tiny.gguf"))
    return Installation(settings=Settings(), paths=Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)}))


def test_a_run_replays_every_policy_and_writes_its_report(
    request_of: Callable[..., run.BenchRequest], installation: Installation
) -> None:
    events: list[run.TypingEvent] = []
    report = run.bench(request_of(), installation, events.append)
    assert list(report.policies) == ["ours", "llama.vscode"]
    assert isinstance(events[-1], run.BenchReported)
    assert report.policies["llama.vscode"].p50_ms is None
    assert TYPING.read(request_of().folder) == report
    assert {"bench.json", "bench.md", "bench.html"} < {path.name for path in request_of().folder.iterdir()}


def test_an_interrupted_run_goes_on_without_replaying_what_is_done(
    request_of: Callable[..., run.BenchRequest], installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(policy: Policy, *, interrupt: bool) -> Policy:
        def open_(engine: object, workspace: TraceWorkspace) -> Played:
            opened.append(policy.name)
            if interrupt:
                raise KeyboardInterrupt
            return Played({})

        return Policy(policy.name, "", policy.recreated, open_)

    with pytest.raises(Cancelled, match="1 replays, which are kept"):
        run.bench(
            request_of(policies=(counted(PLAYED, interrupt=False), counted(RIVAL, interrupt=True))),
            installation,
            lambda _: None,
        )
    with pytest.raises(Conflict, match="holds a run already"):
        run.bench(request_of(), installation, lambda _: None)
    with pytest.raises(Conflict, match="started with other options"):
        run.bench(request_of(resume=True, seed=1), installation, lambda _: None)
    run.bench(
        request_of(resume=True, policies=(counted(PLAYED, interrupt=False), counted(RIVAL, interrupt=False))),
        installation,
        lambda _: None,
    )
    assert opened == ["ours", "llama.vscode", "llama.vscode"]


@pytest.fixture
def report(tmp_path: Path) -> BenchReport:
    trace = short_trace(tmp_path, keys=5)
    runs = [
        msgspec.structs.replace(played(tmp_path, Played({"def": " subtract"}), keys=4, wait_s=0.001), policy=name)
        for name in ("ours", "ours-base", "llama.vscode")
    ]
    return assemble(
        runs,
        [trace],
        [],
        created="now",
        command="peft-daemon bench typing <b>",
        seconds=1.0,
        seed=0,
        quick=True,
        model="tiny",
        model_sha256="0" * 64,
    )


def test_the_table_fits_a_terminal_of_80_columns(report: BenchReport) -> None:
    out = StringIO()
    print_typing_report(Console(file=out, width=80), report, "/somewhere")
    table = out.getvalue().split("exact line")[0].splitlines()
    assert max(len(line) for line in table) <= 80
    assert "llama.vscode" in out.getvalue()
    assert "…" not in out.getvalue()


def test_the_report_is_written_for_people_and_escapes_what_it_quotes(report: BenchReport, tmp_path: Path) -> None:
    write_report(tmp_path, report)
    page = html_report(report)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert page.count("<polyline") == 3
    assert "| first p50, ms |" in markdown_report(report)


def test_curves_rise_to_the_share_that_got_a_suggestion() -> None:
    drawn = charts.curves("time", {"ours": (100.0, None), "llama.vscode": (10.0, 30_000.0)})
    ours, rival = drawn.curves
    ends = [float(curve.points.split()[-1].split(",")[1]) for curve in (ours, rival)]
    assert ends == [(drawn.axes.top + drawn.axes.bottom) / 2, drawn.axes.top]
    xs = [float(point.split(",")[0]) for point in rival.points.split()]
    assert xs == sorted(xs)
