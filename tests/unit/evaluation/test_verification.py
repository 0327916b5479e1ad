"""Which answers are run, how often, and what their outcomes are worth. The processes are real, though unconfined."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peft_evaluation import verification
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.model import ModelOutput
from peft_evaluation.sample import FunctionTests, Sample, SampleSet
from peft_evaluation.sandbox.base import Launch, SandboxLimits, SandboxOutcome
from peft_evaluation.sandbox.sandboxes import Unconfined
from peft_evaluation.scorers.scoring import score
from peft_evaluation.verification import Verification, VerificationProgress, verification_key, verify
from peft_tuning.data.datasets.apps import InputForm, ProblemTests
from peft_tuning.data.examples import IntentExample

DOUBLE = FunctionTests(
    entry_point="double", preamble="", stub="", check="def check(candidate):\n    assert candidate(2) == 4\n"
)
SUMS = ProblemTests(form=InputForm.STDIN, inputs=("1\n", "2\n", "3\n", "4\n"), outputs=("2\n", "4\n", "6\n", "9\n"))
RIGHT, WRONG = "def double(x): return 2 * x", "def double(x): return x"


def items() -> SampleSet:
    tested = [("double", DOUBLE), ("sums", SUMS), ("untested", None)]
    return SampleSet(
        name="small",
        part="test",
        items=tuple(
            Sample(example=IntentExample(id=name, intent=name, code=""), tests=tests, group="easy" if tests else "")
            for name, tests in tested
        ),
        pool=(),
        max_tokens=16,
        licence="none",
        provenance="made here",
    )


def answered(item: str, *texts: str, strategy: str = "zero-shot") -> SampleResult:
    given = ModelOutput(texts=texts, shown=0, prompt_tokens=1, reused_tokens=0, answer_tokens=1, latency_ms=1.0)
    return SampleResult(
        strategy=strategy, seed=0, item=item, given=given, examples=(), memory_bytes=1, session="s", elapsed_s=1.0
    )


@dataclass
class Counting(Unconfined):
    """Counts the processes with code under test, and how many are there at once."""

    scripts: list[str] = field(default_factory=list)

    def launch(self, script: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        self.scripts.append(script)
        return super().launch(script, arguments, limits)


def run(
    tmp_path: Path, given: Sequence[SampleResult], sandbox: Counting, workers: int = 2
) -> tuple[list[Verification], list[VerificationProgress]]:
    told: list[VerificationProgress] = []
    with Journal(tmp_path / "runs.jsonl", Verification) as journal:
        verify(items(), given, sandbox, workers=workers, journal=journal, on_progress=told.append)
        return list(journal.read()), told


def test_the_same_text_is_run_once_and_nothing_again_after_an_interruption(tmp_path: Path) -> None:
    sandbox = Counting()
    first = [answered("double", RIGHT, WRONG, RIGHT), answered("untested", "x"), answered("gone", "x")]
    ran, told = run(tmp_path, first, sandbox)
    assert {each.key: each.outcome for each in ran} == {
        verification_key("double", RIGHT): SandboxOutcome.PASSED,
        verification_key("double", WRONG): SandboxOutcome.FAILED,
    }
    assert [(each.done, each.of) for each in told] == [(1, 2), (2, 2)]
    assert sandbox.scripts.count("functions.answer_calls") == 2
    more = [*first, answered("double", RIGHT, strategy="rag"), answered("double", "def double(x): return 4")]
    ran, told = run(tmp_path, more, sandbox)
    assert sandbox.scripts.count("functions.answer_calls") == 3
    assert [(each.done, each.of) for each in told] == [(3, 3)]
    assert len(ran) == 3


def test_what_was_late_among_others_is_run_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: every second program of two at once is late, alone none is."""
    lock, under_way, together = threading.Lock(), [0], []
    real = verification.verify_one

    def busy(item: Sample, text: str, sandbox: Unconfined) -> Verification:
        with lock:
            under_way[0] += 1
            crowded = under_way[0] > 1 or threading.current_thread() is not threading.main_thread()
        try:
            found = real(item, text, sandbox)
        finally:
            with lock:
                under_way[0] -= 1
        together.append(crowded)
        late = crowded and text == RIGHT
        return Verification(**{**_fields(found), "outcome": SandboxOutcome.TIMEOUT, "passed": 0}) if late else found

    monkeypatch.setattr(verification, "verify_one", busy)
    ran, told = run(tmp_path, [answered("double", RIGHT, WRONG)], Counting())
    assert {each.key: each.outcome for each in ran}[verification_key("double", RIGHT)] is SandboxOutcome.PASSED
    assert together == [True, True, False]
    assert [each.done for each in told] == [1, 2]


def _fields(ran: Verification) -> dict[str, object]:
    return {name: getattr(ran, name) for name in Verification.__struct_fields__}


def test_a_loop_counts_as_timeout_after_it_was_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TRIAL_SECONDS", {FunctionTests: 0.4, ProblemTests: 0.4})
    sandbox = Counting()
    ran, _ = run(tmp_path, [answered("sums", "while True: pass")], sandbox)
    assert [(each.outcome, each.passed, each.of) for each in ran] == [(SandboxOutcome.TIMEOUT, 0, 4)]
    # The other three tests are not waited for.
    assert sandbox.scripts == ["confine.run_program", "confine.run_program"]


def test_outcomes_become_pass_at_k_and_for_problems_the_share_of_tests(tmp_path: Path) -> None:
    given = [
        answered("double", RIGHT, WRONG, WRONG, RIGHT, "no python ("),
        answered("sums", "print(2 * int(input()))", "print(2)"),
        answered("untested", "x"),
    ]
    ran, _ = run(tmp_path, given, Counting())
    double, sums, untested = score(items(), given, {each.key: each for each in ran})
    (of_double,), (of_sums,), (of_untested,) = double.answers, sums.answers, untested.answers
    assert of_double.scores["pass@1"] == pytest.approx(2 / 5)
    assert of_double.scores["pass@2"] == pytest.approx(1 - 3 / 10)
    assert "pass@10" not in of_double.scores and "tests" not in of_double.scores
    assert of_double.outcomes[0] == "passed" and of_double.outcomes[4].startswith("raised: SyntaxError")
    # The last test expects 9 for 4: three of four pass, then one of four.
    assert of_sums.scores["tests"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert of_sums.scores["strict"] == of_sums.scores["pass@1"] == 0
    assert of_untested.outcomes == () and not any(name.startswith("pass") for name in of_untested.scores)
    unscored = score(items(), given, {})[0].answers[0]
    assert "pass@1" not in unscored.scores and unscored.outcomes == ()
