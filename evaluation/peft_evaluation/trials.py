"""What has to be run to know whether an answer is right: the program made of it, and each test. Runs nothing itself."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import cast

from peft_core.code.document import lines_of
from peft_evaluation.items import FunctionTests, RepositoryTests, Tests
from peft_evaluation.sandbox.base import Limits, Sandbox, Verdict
from peft_evaluation.sandbox.functions import run_function
from peft_evaluation.sandbox.programs import run_program
from peft_evaluation.sandbox.suites import run_suite
from peft_tuning.data.datasets.apps import InputForm, ProblemTests

Trial = Callable[[Sandbox, Limits], Verdict]

SECONDS = {FunctionTests: 10.0, ProblemTests: 4.0}
"""Wall clock of one trial; the study's 4 s for a test of APPS. A repository's tests say how long they may take."""
PREAMBLE = (
    "import collections, functools, heapq, itertools, math, random, re, string, sys\n"
    "from bisect import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom math import *\nfrom typing import *\n"
)
"""Before every answer to APPS, whose problems come from sites that import these; like the published checker's."""


def trials(tests: Tests, answer: str) -> Sequence[Trial]:
    """One per test; passing all of them is passing."""
    if isinstance(tests, FunctionTests):
        return (_function_trial(tests, answer),)
    if isinstance(tests, RepositoryTests):
        return (_suite_trial(tests, answer),)
    pairs = zip(tests.inputs, tests.outputs, strict=True)
    if tests.form is InputForm.STDIN:
        return tuple(_program_trial(answer, _text(given), _text(expected)) for given, expected in pairs)
    return tuple(_call_trial(tests, answer, given, expected) for given, expected in pairs)


def complete(tests: FunctionTests, answer: str) -> str:
    """The program: what stands before the function, then the function, of which the answer may be the body alone."""
    if tests.stub and not _defines(answer, tests.entry_point):
        return tests.preamble + tests.stub + _body(answer)
    return f"{tests.preamble}\n{answer}"


def _function_trial(tests: FunctionTests, answer: str) -> Trial:
    code = complete(tests, answer)
    return lambda sandbox, limits: run_function(code, tests.entry_point, (tests.preamble, tests.check), sandbox, limits)


def _suite_trial(tests: RepositoryTests, answer: str) -> Trial:
    file = tests.path, tests.before + answer + tests.after
    return lambda sandbox, limits: run_suite(tests.suite, file, sandbox, limits)


def _program_trial(answer: str, given: str, expected: str) -> Trial:
    return lambda sandbox, limits: run_program(PREAMBLE + answer, given, expected, sandbox, limits)


def _call_trial(tests: ProblemTests, answer: str, given: object, expected: object) -> Trial:
    check = _CHECK.format(readings=readings(tests.form, given), expected=expected)
    function = cast(str, tests.function)
    return lambda sandbox, limits: run_function(PREAMBLE + answer, function, (check,), sandbox, limits)


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
