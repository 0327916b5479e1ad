"""What every sandbox has to hold, and that no answer can say of itself that it is right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from escapes import ESCAPES, Escape, attack

from peft_evaluation.repo_tests.interpreter import find
from peft_evaluation.sandbox.base import Sandbox, SandboxLimits, SandboxOutcome, SandboxVerdict, SandboxWorkspace
from peft_evaluation.sandbox.execution import run_function, run_program
from peft_evaluation.sandbox.sandboxes import Bubblewrap, Unconfined
from support.waiting import wait_until


def in_workspace() -> Sandbox:
    """The more permissive kind, with all that this interpreter reads."""
    python, folder = find(Path("/"), Path(sys.executable)), Path("/somebody/project")
    workspace = SandboxWorkspace(
        folder=str(folder), room_bytes=2**20, python=python.python, mounts=python.mounts(folder)
    )
    return Bubblewrap().workspace(workspace)


SANDBOXES: dict[str, Callable[[], Sandbox]] = {"bubblewrap": Bubblewrap, "bubblewrap workspace": in_workspace}
"""All there are; one that is added here is held to everything below."""
CHECK = "def check(candidate):\n    given = candidate()\n    assert given == 'held', given\n"
LIMITS = SandboxLimits(seconds=20)
MARKER = 7_316_205_418
EXPECTS = f"def check(candidate):\n    assert candidate(2) == {MARKER}\n    assert candidate(3) == {MARKER} + 1\n"


@pytest.fixture(scope="module", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return SANDBOXES[request.param]()


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
def test_an_escape_is_held(sandbox: Sandbox, outside: dict[str, object], escape: Escape) -> None:
    verdict = run_function(attack(escape, outside), "attack", (CHECK,), sandbox, LIMITS)
    assert verdict == SandboxVerdict(outcome=SandboxOutcome.PASSED)
    assert Path(str(outside["SECRET"])).read_text() == "31337"
    assert not Path(str(outside["OUTSIDE"])).exists()


@pytest.mark.parametrize("escape", [each for each in ESCAPES if each.harmless], ids=lambda escape: escape.name)
def test_an_escape_succeeds_where_nothing_holds_it(outside: dict[str, object], escape: Escape) -> None:
    verdict = run_function(attack(escape, outside), "attack", (CHECK,), Unconfined(), LIMITS)
    Path(str(outside["OUTSIDE"])).unlink(missing_ok=True)
    assert verdict.outcome is SandboxOutcome.FAILED and "escaped" in verdict.why


FORGERIES = {
    "exit with success": "import os; os._exit(0)",
    "exit with success when called": "import os\ndef f(x): os._exit(0)",
    "leave politely": "import sys; sys.exit(0)",
    "equal to everything": "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()",
    "a number equal to everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Any(1)"
    ),
    "a verdict on every descriptor": (
        'import os\nfor n in range(64):\n    for line in (b\'["", "passed", ""]\\n\', b\'passed\\n\'):\n'
        "        try: os.write(n, line)\n        except OSError: pass\ndef f(x): return 0"
    ),
    "close every descriptor": "import os\ndef f(x): os.closerange(0, 64)",
    "the expected value from the frames": (
        "import sys, gc\ndef f(x):\n    frame, seen = sys._getframe(), []\n    while frame:\n"
        "        seen += [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]\n"
        "        frame = frame.f_back\n    seen += gc.get_objects()\n"
        "    found = [v for v in seen if isinstance(v, int) and v > 7_000_000_000 and v < 8_000_000_000]\n"
        "    return found[0] if found else None"
    ),
    "the expected value from the modules": (
        "import sys\ndef f(x):\n    for module in list(sys.modules.values()):\n"
        "        for value in list(vars(module).values()):\n"
        "            if isinstance(value, (str, bytes)) and '7316205418' in str(value): return 7_316_205_418 + x - 2\n"
    ),
    "the expected value from the descriptors": (
        "import os\ndef f(x):\n    for n in range(64):\n        try:\n            os.lseek(n, 0, 0)\n"
        "            if b'7316205418' in os.read(n, 10**6): return 7_316_205_418 + x - 2\n        except OSError: pass"
    ),
    "asserts that do nothing": (
        "import builtins\nbuiltins.AssertionError = type('Fine', (BaseException,), {})\ndef f(x): return 0"
    ),
    "another way to send": (
        "from peft_evaluation.sandbox.inside import wire\n"
        'wire.dump = lambda value: b\'{"list": ["value", {"__import__": ["os"]}]}\\n\'\ndef f(x): return 0'
    ),
    "no reply but a value that breaks the reader": (
        "from peft_evaluation.sandbox.inside import wire\nwire.dump = lambda value: b'[' * 10**6 + b'\\n'\n"
        "def f(x): return 0"
    ),
    "replies without end": (
        "from peft_evaluation.sandbox.inside import wire\nwire.dump = lambda value: b'x' * (80 * 2**20)\n"
        "def f(x): return 0"
    ),
    "replies before any call": (
        'import os, sys\nos.write(int(sys.argv[3]), b\'{"list": ["value", 0]}\\n\' * 5)\ndef f(x): return 0'
    ),
    "an exception named like success": "class passed(Exception): pass\ndef f(x): raise passed('passed')",
    "an object deeper than the stack": "def f(x):\n    y = []\n    for _ in range(10**5): y = [y]\n    return y",
    "the end of the interpreter": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_a_wrong_answer_cannot_pass(sandbox: Sandbox, code: str) -> None:
    verdict = run_function(code, "f", (EXPECTS,), sandbox, LIMITS)
    assert verdict.outcome in (SandboxOutcome.FAILED, SandboxOutcome.RAISED, SandboxOutcome.CRASHED)


def test_the_right_answer_passes(sandbox: Sandbox) -> None:
    code = f"def f(x): return {MARKER} + x - 2"
    assert run_function(code, "f", (EXPECTS,), sandbox, LIMITS).outcome is SandboxOutcome.PASSED


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    while True: pass",
        "def f(x):\n    import time; time.sleep(1000)",
        "import threading, time\ndef run():\n    while True: time.sleep(1)\n"
        "threading.Thread(target=run).start()\ndef f(x): time.sleep(1000)",
        "import signal\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\ndef f(x):\n    while True: pass",
    ],
    ids=["loop", "sleep", "thread", "deaf"],
)
def test_what_does_not_end_is_ended_and_leaves_nothing(sandbox: Sandbox, code: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    verdict = run_function(code, "f", (EXPECTS,), sandbox, SandboxLimits(seconds=0.5))
    assert verdict.outcome is SandboxOutcome.TIMEOUT
    wait_until(
        lambda: set(psutil.Process().children(recursive=True)) <= before,
        lambda: f"the end of {set(psutil.Process().children(recursive=True)) - before}",
        limit_s=10,
        step_s=0.05,
    )


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("print(int(input()) * 2)", SandboxOutcome.PASSED),
        ("import sys; print(int(sys.stdin.readline()) * 2); sys.exit(0)", SandboxOutcome.PASSED),
        ("print(41)", SandboxOutcome.FAILED),
        ("import os; os._exit(0)", SandboxOutcome.FAILED),
        ("print('42'); raise SystemExit(3)", SandboxOutcome.RAISED),
        ("this is no Python", SandboxOutcome.RAISED),
        ("while True: print('42' * 10000)", SandboxOutcome.OUTPUT),
        ("while True: pass", SandboxOutcome.TIMEOUT),
        ("open('/etc/passwd')\nprint(42)", SandboxOutcome.RAISED),
        (
            "import os\nfor n in range(64):\n    try: os.write(n, b'passed')\n    except OSError: pass",
            SandboxOutcome.FAILED,
        ),
    ],
)
def test_a_program_is_judged_by_what_it_prints(sandbox: Sandbox, code: str, outcome: SandboxOutcome) -> None:
    limits = SandboxLimits(seconds=2 if outcome is SandboxOutcome.TIMEOUT else 20)
    assert run_program(code, "21\n", "42\n", sandbox, limits).outcome is outcome
