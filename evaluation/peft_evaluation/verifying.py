"""Between answering and scoring: every answer to an item with tests is run against them in the sandbox.

One line of ``runs.jsonl`` per answer as it is done; the same text for the same item is run once. Several are under way
at once; what ran out of time is run again alone before that counts, so that a busy machine changes no verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import msgspec

from peft_evaluation.generating import Answered
from peft_evaluation.items import Item, ItemSet, RepositoryTests
from peft_evaluation.journal import Journal
from peft_evaluation.sandbox.base import Limits, Outcome, Sandbox, Verdict
from peft_evaluation.trials import SECONDS, trials


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``runs.jsonl``."""

    item: str
    answer: str
    """sha256 of the text."""
    outcome: Outcome
    """``passed``, or that of the first test that did not pass."""
    why: str
    passed: int
    of: int
    """Tests; none are run after one that took too long, and those count as not passed."""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the only one of its kind."""
        return self.item, self.answer


Runs = dict[tuple[str, str], Ran]


@dataclass(frozen=True)
class Verified:
    """Progress: one more answer is run."""

    done: int
    of: int
    last: Ran


def key(item: str, text: str) -> tuple[str, str]:
    """Of ``Ran.key``."""
    return item, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def verify(
    items: ItemSet,
    answered: Iterable[Answered],
    sandbox: Sandbox,
    *,
    workers: int,
    journal: Journal[Ran],
    tell: Callable[[Verified], None],
) -> None:
    """Run what was not run yet, ``workers`` at once. ``journal`` is open for appending. Raises OSError."""
    by_id = {item.id: item for item in items.items if item.tests is not None}
    texts = {
        key(each.item, text): (by_id[each.item], text)
        for each in answered
        if each.item in by_id
        for text in each.given.texts
    }
    run_texts(texts, sandbox, workers=workers, journal=journal, tell=tell)


def run_texts(
    texts: Mapping[tuple[str, str], tuple[Item, str]],
    sandbox: Sandbox,
    *,
    workers: int,
    journal: Journal[Ran],
    tell: Callable[[Verified], None],
) -> None:
    """The same for texts that nobody answered, each with its item and under its ``key``."""
    known = {ran.key for ran in journal.read()}
    left = [pair for found, pair in texts.items() if found not in known]
    done = len(texts) - len(left)
    late: list[tuple[Item, str]] = []

    def finish(ran: Ran) -> None:
        nonlocal done
        journal.append(ran)
        done += 1
        tell(Verified(done, len(texts), ran))

    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(run, item, text, sandbox): (item, text) for item, text in left}
        try:
            for future in as_completed(running):
                ran = future.result()
                if ran.outcome is Outcome.TIMEOUT:
                    late.append(running[future])
                else:
                    finish(ran)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for item, text in late:
        finish(run(item, text, sandbox))


def run(item: Item, text: str, sandbox: Sandbox) -> Ran:
    """All tests of ``item`` until one takes too long. Raises ValueError without tests, OSError without processes."""
    if item.tests is None:
        raise ValueError(f"{item.id} has no tests")
    if isinstance(item.tests, RepositoryTests):
        limits = item.tests.suite.limits
    else:
        limits = Limits(seconds=SECONDS[type(item.tests)])
    wanted = trials(item.tests, text)
    verdicts: list[Verdict] = []
    for trial in wanted:
        verdicts.append(trial(sandbox, limits))
        if verdicts[-1].outcome is Outcome.TIMEOUT:
            break
    wrong = [each for each in verdicts if each.outcome is not Outcome.PASSED]
    # A test that took too long is what others were not run for.
    shown = (wrong[-1] if wrong[-1].outcome is Outcome.TIMEOUT else wrong[0]) if wrong else _PASSED
    if not wanted:
        shown = Verdict(outcome=Outcome.FAILED, why="there are no tests")
    name, answer = key(item.id, text)
    passed = len(verdicts) - len(wrong)
    return Ran(item=name, answer=answer, outcome=shown.outcome, why=shown.why, passed=passed, of=len(wanted))


_PASSED = Verdict(outcome=Outcome.PASSED)
