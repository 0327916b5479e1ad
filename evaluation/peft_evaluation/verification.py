"""Run every answer to a sample with tests in the sandbox, and append what came of it to ``runs.jsonl``.

The same text for the same sample is run once. Several run at once; what ran out of time is run again alone before that
counts, so that a busy machine changes no verdict.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import cast

import msgspec

from peft_core.code.document import lines_of
from peft_core.tasks import OnProgress
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal
from peft_evaluation.sample import FunctionTests, RepositoryTests, Sample, SampleSet, SampleTests
from peft_evaluation.sandbox.base import Sandbox, SandboxLimits, SandboxOutcome, SandboxVerdict
from peft_evaluation.sandbox.execution import run_function, run_program
from peft_evaluation.sandbox.pytest_suite import run_suite
from peft_tuning.data.datasets.apps import InputForm, ProblemTests


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``runs.jsonl``."""

    item: str
    answer: str
    """sha256 of the text."""
    outcome: SandboxOutcome
    """``passed``, or that of the first test that did not pass."""
    why: str
    passed: int
    of: int
    """Tests; none are run after one that took too long, and those count as not passed."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the only one of its kind."""
        return self.item, self.answer


Verifications = dict[tuple[str, str], Verification]


@dataclass(frozen=True)
class VerificationProgress:
    """Progress: one more answer is run."""

    done: int
    of: int
    last: Verification


def verification_key(item: str, text: str) -> tuple[str, str]:
    """Of ``Ran.key``."""
    return item, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def verify(
    items: SampleSet,
    answered: Iterable[SampleResult],
    sandbox: Sandbox,
    *,
    workers: int,
    journal: Journal[Verification],
    on_progress: OnProgress[VerificationProgress],
) -> None:
    """Run what was not run yet, ``workers`` at once. ``journal`` is open for appending. Raises OSError."""
    by_id = {item.id: item for item in items.items if item.tests is not None}
    texts = {
        verification_key(each.item, text): (by_id[each.item], text)
        for each in answered
        if each.item in by_id
        for text in each.given.texts
    }
    verify_texts(texts, sandbox, workers=workers, journal=journal, on_progress=on_progress)


def verify_texts(
    texts: Mapping[tuple[str, str], tuple[Sample, str]],
    sandbox: Sandbox,
    *,
    workers: int,
    journal: Journal[Verification],
    on_progress: OnProgress[VerificationProgress],
) -> None:
    """The same for texts that nobody answered, each with its item and under its ``key``."""
    known = {ran.key for ran in journal.read()}
    left = [pair for found, pair in texts.items() if found not in known]
    done = len(texts) - len(left)
    late: list[tuple[Sample, str]] = []

    def finish(ran: Verification) -> None:
        nonlocal done
        journal.append(ran)
        done += 1
        on_progress(VerificationProgress(done, len(texts), ran))

    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(verify_one, item, text, sandbox): (item, text) for item, text in left}
        try:
            for future in as_completed(running):
                ran = future.result()
                if ran.outcome is SandboxOutcome.TIMEOUT:
                    late.append(running[future])
                else:
                    finish(ran)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for item, text in late:
        finish(verify_one(item, text, sandbox))


def verify_one(item: Sample, text: str, sandbox: Sandbox) -> Verification:
    """All tests of ``item`` until one takes too long. Raises ValueError without tests, OSError without processes."""
    if item.tests is None:
        raise ValueError(f"{item.id} has no tests")
    if isinstance(item.tests, RepositoryTests):
        limits = item.tests.suite.limits
    else:
        limits = SandboxLimits(seconds=TRIAL_SECONDS[type(item.tests)])
    wanted = trials_of(item.tests, text)
    verdicts: list[SandboxVerdict] = []
    for trial in wanted:
        verdicts.append(trial(sandbox, limits))
        if verdicts[-1].outcome is SandboxOutcome.TIMEOUT:
            break
    wrong = [each for each in verdicts if each.outcome is not SandboxOutcome.PASSED]
    # A test that took too long is what others were not run for.
    shown = (wrong[-1] if wrong[-1].outcome is SandboxOutcome.TIMEOUT else wrong[0]) if wrong else _PASSED
    if not wanted:
        shown = SandboxVerdict(outcome=SandboxOutcome.FAILED, why="there are no tests")
    name, answer = verification_key(item.id, text)
    passed = len(verdicts) - len(wrong)
    return Verification(item=name, answer=answer, outcome=shown.outcome, why=shown.why, passed=passed, of=len(wanted))


_PASSED = SandboxVerdict(outcome=SandboxOutcome.PASSED)


Trial = Callable[[Sandbox, SandboxLimits], SandboxVerdict]

TRIAL_SECONDS = {FunctionTests: 10.0, ProblemTests: 4.0}
"""Wall clock of one trial; the study's 4 s for a test of APPS. A repository's tests say how long they may take."""
APPS_PREAMBLE = (
    "import collections, functools, heapq, itertools, math, random, re, string, sys\n"
    "from bisect import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom math import *\nfrom typing import *\n"
)
"""Before every answer to APPS, whose problems come from sites that import these; like the published checker's."""


def trials_of(tests: SampleTests, answer: str) -> Sequence[Trial]:
    """One per test; passing all of them is passing."""
    if isinstance(tests, FunctionTests):
        return (_function_trial(tests, answer),)
    if isinstance(tests, RepositoryTests):
        return (_suite_trial(tests, answer),)
    pairs = zip(tests.inputs, tests.outputs, strict=True)
    if tests.form is InputForm.STDIN:
        return tuple(_program_trial(answer, _text(given), _text(expected)) for given, expected in pairs)
    return tuple(_call_trial(tests, answer, given, expected) for given, expected in pairs)


def complete_program(tests: FunctionTests, answer: str) -> str:
    """The program: what stands before the function, then the function, of which the answer may be the body alone."""
    if tests.stub and not _defines(answer, tests.entry_point):
        return tests.preamble + tests.stub + _body(answer)
    return f"{tests.preamble}\n{answer}"


def _function_trial(tests: FunctionTests, answer: str) -> Trial:
    code = complete_program(tests, answer)
    return lambda sandbox, limits: run_function(code, tests.entry_point, (tests.preamble, tests.check), sandbox, limits)


def _suite_trial(tests: RepositoryTests, answer: str) -> Trial:
    file = tests.path, tests.before + answer + tests.after
    return lambda sandbox, limits: run_suite(tests.suite, file, sandbox, limits)


def _program_trial(answer: str, given: str, expected: str) -> Trial:
    return lambda sandbox, limits: run_program(APPS_PREAMBLE + answer, given, expected, sandbox, limits)


def _call_trial(tests: ProblemTests, answer: str, given: object, expected: object) -> Trial:
    check = _CHECK.format(readings=readings(tests.form, given), expected=expected)
    function = cast(str, tests.function)
    return lambda sandbox, limits: run_function(APPS_PREAMBLE + answer, function, (check,), sandbox, limits)


_CHECK = """\
def same(given, wanted):
    if isinstance(given, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(given, float) or isinstance(wanted, float):
        try:
            return abs(given - wanted) <= 1e-8 + 1e-5 * abs(wanted)
        except TypeError:
            return False
    return given == wanted

def check(candidate):
    expected = {expected!r}
    accepted = [expected, *(expected if isinstance(expected, list) and len(expected) == 1 else [])]
    failure = None
    for arguments in {readings!r}:
        try:
            given = candidate(*arguments)
        except Exception as error:
            failure = error
            continue
        if any(same(given, wanted) for wanted in accepted):
            return
    if failure is not None:
        raise failure
    raise AssertionError(f"gave {{given!r}}"[:120])
"""


def readings(form: InputForm, given: object) -> list[list[object]]:
    """The argument lists an input can mean: one, or for lines of unknown types also every line as text."""
    if form is InputForm.ARGUMENTS:
        return [list(cast(Sequence[object], given))]
    lines = str(given).split("\n")
    typed = [_literal(line) for line in lines]
    return [typed] if typed == lines else [typed, list(lines)]


def _literal(line: str) -> object:
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "null": None}.get(line.strip(), line)


def _text(value: object) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _defines(answer: str, function: str) -> bool:
    try:
        body = ast.parse(answer).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"def {function}" in answer
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == function for node in body)


def _body(answer: str) -> str:
    """Indented as a function's body, whether it comes so, not at all, or all but its first line."""
    text = answer.strip("\n")
    if text.startswith((" ", "\t")):
        return text
    first, newline, rest = text.partition("\n")
    indented = all(line.startswith((" ", "\t")) for line in lines_of(rest) if line.strip())
    if rest.strip() and indented and not first.rstrip().endswith(":"):
        return f"    {first}{newline}{rest}"
    return "".join(f"    {line}" if line.strip() else line for line in lines_of(text))
