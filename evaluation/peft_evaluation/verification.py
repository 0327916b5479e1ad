"""Run every answer to a sample with tests in the sandbox, and append the results to ``runs.jsonl``.

The same text for the same sample is run once. Several texts run at the same time; one that exceeds its time limit is
run again alone, and only that result counts, so that a busy machine does not change results.
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
    """``passed``, or the outcome of the first test that did not pass."""
    why: str
    passed: int
    """Number of tests that passed."""
    of: int
    """Number of tests; after one that exceeds its time limit no more are run, and they count as not passed."""

    @property
    def key(self) -> tuple[str, str]:
        """Item and answer: unique in a journal."""
        return self.item, self.answer


Verifications = dict[tuple[str, str], Verification]


@dataclass(frozen=True)
class VerificationProgress:
    """Progress: one more answer was run."""

    done: int
    of: int
    last: Verification


def verification_key(item: str, text: str) -> tuple[str, str]:
    """Return the ``Verification.key`` of a text for an item."""
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
    """Run all answers that are not in the journal yet, ``workers`` at the same time; raises OSError.

    ``journal`` is open for appending.
    """
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
    """Run texts as ``verify`` does; ``texts`` has the item and the text by their ``verification_key``."""
    known = {ran.key for ran in journal.read()}
    left = [pair for found, pair in texts.items() if found not in known]
    done = len(texts) - len(left)
    timed_out: list[tuple[Sample, str]] = []

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
                    timed_out.append(running[future])
                else:
                    finish(ran)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for item, text in timed_out:
        finish(verify_one(item, text, sandbox))


def verify_one(item: Sample, text: str, sandbox: Sandbox) -> Verification:
    """Run the tests of ``item`` with a text until one exceeds its time limit.

    Raises ValueError for an item without tests, OSError if no process can be started.
    """
    if item.tests is None:
        raise ValueError(f"{item.id} has no tests")
    if isinstance(item.tests, RepositoryTests):
        limits = item.tests.suite.limits
    else:
        limits = SandboxLimits(seconds=TRIAL_SECONDS[type(item.tests)])
    trials = trials_of(item.tests, text)
    verdicts: list[SandboxVerdict] = []
    for trial in trials:
        verdicts.append(trial(sandbox, limits))
        if verdicts[-1].outcome is SandboxOutcome.TIMEOUT:
            break
    failed = [each for each in verdicts if each.outcome is not SandboxOutcome.PASSED]
    # A time limit that was exceeded is more telling than the first failure: it is why other tests were not run.
    result = (failed[-1] if failed[-1].outcome is SandboxOutcome.TIMEOUT else failed[0]) if failed else _PASSED
    if not trials:
        result = SandboxVerdict(outcome=SandboxOutcome.FAILED, why="there are no tests")
    name, answer = verification_key(item.id, text)
    passed = len(verdicts) - len(failed)
    return Verification(item=name, answer=answer, outcome=result.outcome, why=result.why, passed=passed, of=len(trials))


_PASSED = SandboxVerdict(outcome=SandboxOutcome.PASSED)


Trial = Callable[[Sandbox, SandboxLimits], SandboxVerdict]

TRIAL_SECONDS = {FunctionTests: 10.0, ProblemTests: 4.0}
"""Time limit of one trial (wall clock); 4 s for a test of APPS as in arXiv 2308.10462. A suite has its own limit."""
APPS_PREAMBLE = (
    "import collections, functools, heapq, itertools, math, random, re, string, sys\n"
    "from bisect import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom math import *\nfrom typing import *\n"
)
"""Code before every answer to APPS, as in the published checker: the sites the problems come from import these."""


def trials_of(tests: SampleTests, answer: str) -> Sequence[Trial]:
    """Return one trial per test; an answer has to pass all of them."""
    if isinstance(tests, FunctionTests):
        return (_function_trial(tests, answer),)
    if isinstance(tests, RepositoryTests):
        return (_suite_trial(tests, answer),)
    pairs = zip(tests.inputs, tests.outputs, strict=True)
    if tests.form is InputForm.STDIN:
        return tuple(_program_trial(answer, _text(given), _text(expected)) for given, expected in pairs)
    return tuple(_call_trial(tests, answer, given, expected) for given, expected in pairs)


def complete_program(tests: FunctionTests, answer: str) -> str:
    """Return the program to test: the preamble and the answer, after the stub if the answer is only a body."""
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
    check = _CHECK.format(argument_lists=argument_lists(tests.form, given), expected=expected)
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
    for arguments in {argument_lists!r}:
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


def argument_lists(form: InputForm, given: object) -> list[list[object]]:
    """Return the possible argument lists of an input: one; for lines of unknown types a second one with texts."""
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
    """Return an answer indented as a function's body; it may come indented, not, or but for its first line."""
    text = answer.strip("\n")
    if text.startswith((" ", "\t")):
        return text
    first, newline, rest = text.partition("\n")
    indented = all(line.startswith((" ", "\t")) for line in lines_of(rest) if line.strip())
    if rest.strip() and indented and not first.rstrip().endswith(":"):
        return f"    {first}{newline}{rest}"
    return "".join(f"    {line}" if line.strip() else line for line in lines_of(text))
