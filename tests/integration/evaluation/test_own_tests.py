"""A repository's own tests as judges: of right and wrong answers, of forged ones, and of ways out of the sandbox."""

from __future__ import annotations

import sysconfig
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from escapes import ESCAPES, Escape, attack

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.repo_tests import preparation
from peft_evaluation.repo_tests.preparation import RepositoryTestsRequest, prepare
from peft_evaluation.sample import RepositoryTests, Sample, SampleSet
from peft_evaluation.sandbox.base import SandboxOutcome
from peft_evaluation.sandbox.pytest_suite import PytestSuite, run_suite
from peft_evaluation.sandbox.sandboxes import Bubblewrap, Unconfined
from peft_evaluation.verification import verify_one
from peft_tuning.data.examples import FillExample, HoleKind
from support.own_repository import OwnRepository
from support.tested_repository import ARGUMENTS, PRICES, STEADY, TEST_PRICES, shop

BODY = "result = 0\n    for price in prices:\n        result += price\n    return result"
HOLES = (
    ("shop/prices.py", BODY, HoleKind.BODY),
    ("shop/prices.py", "total(prices) + SHIPPING[kind]", HoleKind.LINE),
    ("shop/prices.py", '"parcel": 9}', HoleKind.LINE),
    ("shop/prices.py", "left = 100 - percent\n    return total(prices) * left / 100", HoleKind.BODY),
    ("shop/prices.py", "thing costs", HoleKind.LINE),
    ("tests/test_prices.py", "assert total([]) == 0", HoleKind.LINE),
)
NOTICED = 3
"""Of them; then come one that no test reaches, a word of a docstring that is not there, and a test itself."""


def hole(path: str, middle: str, kind: HoleKind) -> Sample:
    text = {"shop/prices.py": PRICES, "tests/test_prices.py": TEST_PRICES}[path]
    start = max(text.find(middle), 0)
    line = text.count("\n", 0, start) + 1
    example = FillExample(
        id=f"{path}:{line}:{kind}:{start}",
        # As the data set gives it: not from the file's beginning.
        prefix=text[text.rfind("\n", 0, max(start - 60, 0)) + 1 : start],
        middle=middle,
        suffix=text[start + len(middle) :][:40],
        path=path,
        kind=kind,
    )
    return Sample(example=example, group=kind.value)


def holes() -> SampleSet:
    return SampleSet(
        name="shop",
        part="test",
        items=tuple(hole(*each) for each in HOLES),
        pool=(),
        max_tokens=16,
        licence="none",
        provenance="made here",
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop(tmp_path_factory.mktemp("own") / "shop").root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def prepared(repository: Path, folder: Path) -> SampleSet:
    own = RepositoryTestsRequest(repository=repository, arguments=ARGUMENTS)
    return prepare(holes(), own, Bubblewrap(), folder, workers=2, on_progress=lambda *_: None)


@pytest.fixture(scope="module")
def suite(prepared: SampleSet) -> PytestSuite:
    tests = prepared.items[0].tests
    assert isinstance(tests, RepositoryTests)
    return tests.suite


def judged(prepared: SampleSet, answer: str, item: int = 0) -> tuple[SandboxOutcome, str]:
    ran = verify_one(prepared.items[item], answer, Bubblewrap())
    return ran.outcome, ran.why


def test_only_holes_that_the_tests_notice_have_tests_and_the_rest_are_counted(prepared: SampleSet) -> None:
    assert [item.tests is not None for item in prepared.items] == [True] * NOTICED + [False] * 3
    assert prepared.notes == (
        "3 of 6 holes are exercised by your tests, and pass@k is of those alone; left out are "
        "1 in a file that changed meanwhile, 1 in a test, 1 not reached by them.",
        f"An answer has to pass {STEADY} tests; 2 more do not pass in the sandbox with your own code.",
    )


def test_the_users_own_code_passes_in_every_hole(prepared: SampleSet) -> None:
    for item in prepared.items[:NOTICED]:
        assert verify_one(item, item.reference, Bubblewrap()).outcome is SandboxOutcome.PASSED


def test_nothing_that_was_found_out_is_done_again(
    prepared: SampleSet, repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "report_suite", None)
    monkeypatch.setattr("peft_evaluation.verification.verify_one", None)
    own = RepositoryTestsRequest(repository=repository, arguments=ARGUMENTS)
    again = prepare(holes(), own, Bubblewrap(), folder, workers=2, on_progress=lambda *_: None)
    assert (again, again.digest) == (prepared, prepared.digest)


def test_how_long_tests_take_and_where_their_files_lie_is_no_part_of_the_question(prepared: SampleSet) -> None:
    def with_suite(suite: PytestSuite) -> SampleSet:
        tests = prepared.items[0].tests
        assert isinstance(tests, RepositoryTests)
        return replace(prepared, items=(replace(prepared.items[0], tests=replace(tests, suite=suite)),))

    tests = prepared.items[0].tests
    assert isinstance(tests, RepositoryTests)
    same = with_suite(replace(tests.suite, seconds=77.0, pack="/elsewhere"))
    assert same.digest == with_suite(tests.suite).digest
    assert with_suite(replace(tests.suite, digest="other")).digest != same.digest


@pytest.mark.parametrize(
    ("answer", "outcome", "why"),
    [
        ("return sum(prices)", SandboxOutcome.PASSED, ""),
        ("import math\n    return int(math.fsum(prices))", SandboxOutcome.PASSED, ""),
        ("return 3", SandboxOutcome.FAILED, "assert 3 == 0"),
        ("pass", SandboxOutcome.FAILED, "assert None == 3"),
        ("return (", SandboxOutcome.RAISED, "SyntaxError"),
        ("return prices.total", SandboxOutcome.RAISED, "AttributeError"),
        ("return sum(prices)\n\n\nraise RuntimeError('at import')", SandboxOutcome.RAISED, "at import"),
        (
            "import urllib.request as r\n    return r.urlopen('http://127.0.0.1')",
            SandboxOutcome.RAISED,
            "not permitted",
        ),
        ("open('/usr/lib/written', 'w')", SandboxOutcome.RAISED, "Read-only file system"),
        ("open('/written', 'w')", SandboxOutcome.RAISED, "Read-only file system"),
        ("open('big', 'wb').write(bytes(33 * 2**20))", SandboxOutcome.RAISED, "too large"),
        ("for n in range(40): open(f'{n}', 'wb').write(bytes(2**22))", SandboxOutcome.RAISED, "No space left"),
        ("import os; os.fork()", SandboxOutcome.RAISED, "not permitted"),
        ("import ctypes; ctypes.string_at(0)", SandboxOutcome.CRASHED, "without a report"),
    ],
)
def test_an_answer_is_judged_by_the_tests(prepared: SampleSet, answer: str, outcome: SandboxOutcome, why: str) -> None:
    found = judged(prepared, answer)
    assert found[0] is outcome and why in found[1], found


def test_what_does_not_end_is_ended(prepared: SampleSet, suite: PytestSuite) -> None:
    assert 10.0 <= suite.seconds < 120.0
    text = PRICES.replace(BODY, "while True: pass")
    limits = replace(suite.limits, seconds=4.0)
    assert run_suite(suite, ("shop/prices.py", text), Bubblewrap(), limits).outcome is SandboxOutcome.TIMEOUT


FORGERIES = {
    "ends the process": "import os; os._exit(0)",
    "ends it when it is imported": "return 0\n\n\nimport os; os._exit(0)",
    "leaves politely": "import sys; sys.exit(0)",
    "leaves pytest": "import pytest; pytest.exit('all passed', 0)",
    "leaves pytest when it is imported": "return 0\n\n\nimport pytest; pytest.exit('all passed', 0)",
    "skips": "import pytest; pytest.skip('passed')",
    "expects to fail": "import pytest; pytest.xfail('passed')",
    "prints": "print('5 passed in 0.01s'); return 0",
    "writes everywhere": (
        "import os\n    for n in range(64):\n        for line in (b'passed', b'{\"secret\": \"\"}'):\n"
        "            try: os.write(n, line)\n            except OSError: pass\n    return 0"
    ),
    "closes everything": "import os; os.closerange(0, 64)",
    "changes unittest": (
        "return 0\n\n\nimport unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
        "unittest.TestCase.run = lambda *a: None"
    ),
    "changes pytest's runner": (
        "return 3\n\n\nimport _pytest.runner\n_pytest.runner.pytest_runtest_call = lambda item: None"
    ),
    "changes how functions are called": (
        "return 3\n\n\nimport _pytest.python\n_pytest.python.Function.runtest = lambda self: None"
    ),
    "changes how reports are made": (
        "return 3\n\n\nfrom _pytest.reports import TestReport\n"
        "TestReport.failed = property(lambda self: False)\nTestReport.passed = property(lambda self: True)"
    ),
    "hides what pytest looks with": (
        "return 3\n\n\nimport _pytest.reports\n_pytest.reports.isinstance = lambda *a: False"
    ),
    "changes what counts as an exception": "return 3\n\n\nimport builtins\nbuiltins.AssertionError = SystemError",
    "calls off what runs at the end": "import atexit, os; atexit.register(os._exit, 0); return 3",
    "lies in a thread": "import threading, os; threading.Thread(target=os._exit, args=(0,)).start(); return 3",
    "writes other tests": (
        "open('tests/test_prices.py', 'w').write('def test_total(): pass'); return 3\n\n\n"
        "open('tests/test_prices.py', 'w').write('def test_total(): pass')"
    ),
}


@pytest.mark.parametrize("answer", FORGERIES.values(), ids=FORGERIES)
def test_a_wrong_answer_does_not_pass(prepared: SampleSet, answer: str) -> None:
    assert judged(prepared, answer)[0] is not SandboxOutcome.PASSED


def test_one_that_changes_what_judges_it_is_told_so(prepared: SampleSet) -> None:
    answer = "return sum(prices)\n\n\nimport unittest\nunittest.TestCase.assertEqual = lambda *a: None"
    assert judged(prepared, answer) == (
        SandboxOutcome.FAILED,
        "changes the test tools: unittest.case.TestCase.assertEqual",
    )


def test_the_repository_is_as_it_was(prepared: SampleSet, repository: Path) -> None:
    judged(prepared, "open('shop/prices.py', 'w').write('x'); open('new.py', 'w').write('x')")
    assert (repository / "shop/prices.py").read_text() == PRICES
    assert not (repository / "new.py").exists()
    assert not (repository / "written-into-the-repository.txt").exists()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> PytestSuite:
    """A repository whose one test says whether an attack was held."""
    made = shop(tmp_path_factory.mktemp("attacked") / "shop")
    test = "from shop.attack import attack\n\n\ndef test_attack():\n    assert attack() == 'held'\n"
    made.commit({"shop/attack.py": "def attack(): return 'held'\n", "tests/test_prices.py": test})
    own = RepositoryTestsRequest(repository=made.root, arguments=ARGUMENTS)
    suite = preparation.suite_of(own, tmp_path_factory.mktemp("attacked-evaluation"))
    return replace(suite, passes=("tests/test_prices.py::test_attack",), seconds=60.0)


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
def test_an_escape_is_held_while_tests_run(attacked: PytestSuite, outside: dict[str, object], escape: Escape) -> None:
    # An attack on the environment would find what is set there for the tests, which is not the user's.
    text = attack(escape, outside).replace("or 'HOME' in os.environ", "or os.environ['HOME'] != '/tmp'")
    verdict = run_suite(attacked, ("shop/attack.py", text), Bubblewrap(), attacked.limits)
    assert verdict.outcome is SandboxOutcome.PASSED, verdict
    assert Path(str(outside["SECRET"])).read_text() == "31337"
    assert not Path(str(outside["OUTSIDE"])).exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("-k", "nothing_of_this_name"), NotFound, "finds no tests"),
        (("-k", "process or network"), InvalidInput, "none of your 2 tests passes"),
        (("-k", "test_a_loop"), InvalidInput, "exercise none of the 6 holes: 1 in a file"),
        (("--no-such-option",), NotFound, "pytest ended with status 4"),
    ],
)
def test_tests_that_judge_nothing_are_refused(
    repository: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    own = RepositoryTestsRequest(repository=repository, arguments=(*ARGUMENTS, *arguments))
    with pytest.raises(error, match=message):
        prepare(holes(), own, Bubblewrap(), tmp_path, workers=2, on_progress=lambda *_: None)


def test_tests_are_not_shared_out_to_processes(tmp_path: Path) -> None:
    made = shop(tmp_path / "shop")
    # What pytest-xdist does with its option.
    plugin = (
        "import pytest\n\ndef pytest_addoption(parser):\n    parser.addoption('--numprocesses', type=int)\n\n"
        "@pytest.hookimpl(tryfirst=True)\ndef pytest_cmdline_main(config):\n"
        "    assert config.option.numprocesses == 0\n"
    )
    made.commit({"workers.py": plugin})
    own = RepositoryTestsRequest(repository=made.root, arguments=(*ARGUMENTS, "-p", "workers", "--numprocesses", "4"))
    found = prepare(holes(), own, Bubblewrap(), tmp_path, workers=2, on_progress=lambda *_: None)
    assert sum(item.tests is not None for item in found.items) == NOTICED


def test_a_package_installed_from_the_repository_is_tested_in_the_copy(tmp_path: Path) -> None:
    """As ``pip install -e .`` into ``.venv`` leaves it: a path in a file of its packages."""
    made = OwnRepository(tmp_path / "shop")
    test = TEST_PRICES.replace("shop.prices", "prices")
    made.commit({"src/prices.py": PRICES, "tests/test_prices.py": test, ".gitignore": ".venv\n"})
    venv.create(made.root / ".venv", symlinks=True, with_pip=False)
    packages = next((made.root / ".venv" / "lib").iterdir()) / "site-packages"
    (packages / "installed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{made.root / 'src'}\n")
    item = replace(holes().items[0], example=replace(holes().items[0].example, path="src/prices.py"))
    items = replace(holes(), items=(item,))
    own = RepositoryTestsRequest(repository=made.root, arguments=ARGUMENTS)
    found = prepare(items, own, Bubblewrap(), tmp_path, workers=1, on_progress=lambda *_: None)
    assert judged(found, "return sum(prices)")[0] is SandboxOutcome.PASSED
    assert judged(found, "return 3") == (SandboxOutcome.FAILED, "assert 3 == 0")


def test_without_a_sandbox_nothing_is_run(repository: Path, tmp_path: Path) -> None:
    own = RepositoryTestsRequest(repository=repository, arguments=ARGUMENTS)
    with pytest.raises(InvalidInput, match="run only in a sandbox"):
        prepare(holes(), own, Unconfined(), tmp_path, workers=2, on_progress=lambda *_: None)
    assert not (repository / "written-into-the-repository.txt").exists()
