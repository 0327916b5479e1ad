"""The policies: what is asked for a suggestion in a scenario, by name. All talk to a real daemon, greedily."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from peft_core.api_types import CompleteRequest, Eagerness, Task, Timings
from peft_core.code.edits import LineChange, split_lines
from peft_core.errors import InvalidInput
from peft_core.next_edit_types import EditSilence
from peft_daemon.client import DaemonClient
from peft_daemon.next_edit.moment import request_of
from peft_evaluation.edit_benchmark.scenarios import EditScenario
from peft_evaluation.edit_benchmark.scores import insertion, moment_of

EAGERNESS = Eagerness.AUTO
"""Of the policies that leave out what the model is unsure of: the editors' default."""
TIME_BUDGET_MS = 120_000
"""No answer is cut off for its time: a slow machine measures the same quality, and how long it takes."""


@dataclass(frozen=True, kw_only=True)
class EditAnswer:
    """What a policy suggests, and what is known of it."""

    change: LineChange | None = None
    silence: str = ""
    """Why nothing is suggested, where something says so."""
    detail: str = ""
    why: str = ""
    """Why the place was looked at."""
    confidence: float | None = None
    tokens: int = 0
    """Of the lines that change."""
    mean_log_probability: float | None = None
    timings: Timings = Timings()
    latency_ms: float = 0.0
    """From the request to its answer, as the caller of the daemon sees it."""


TRIES, RETRY_S = 20, 0.5
"""How often and when it is asked again where the engine was still busy with the policy before."""
AskForEdit = Callable[[DaemonClient, EditScenario], Awaitable[EditAnswer]]


@dataclass(frozen=True)
class EditPolicy:
    """One way to get suggestions."""

    name: str
    what: str
    ask: AskForEdit
    model: str = ""
    """The model of its daemon for next edits; empty: the installation's."""
    question: str = ""
    """Policies with the same question have the daemon read the same prompt; empty: it reads none."""


def choose_edit_policies(names: Sequence[str]) -> tuple[EditPolicy, ...]:
    """Return the policies with these names, each once; raises InvalidInput for an unknown name."""
    return tuple(_policy(name) for name in dict.fromkeys(names))


def _policy(name: str) -> EditPolicy:
    kind, _, which = name.partition("=")
    if name in POLICIES:
        return POLICIES[name]
    if kind == "model" and which:
        what = f"next edits of the model {which}, without leaving out what it is unsure of"
        return EditPolicy(name, what, _next_edit(None), model=which, question=name)
    if kind == "adapter" and which:
        what = f"next edits with the adapter {which}, without leaving out what the model is unsure of"
        return EditPolicy(name, what, _next_edit(None, adapter=which), question=name)
    raise InvalidInput(f"there is no policy '{name}'", fix=f"One of: {', '.join(POLICIES)}, model=ID, adapter=NAME")


def _next_edit(eagerness: Eagerness | None, *, adapter: str | None = None) -> AskForEdit:
    async def ask(client: DaemonClient, scenario: EditScenario) -> EditAnswer:
        request = msgspec.structs.replace(
            request_of(moment_of(scenario)),
            document=scenario.id,
            eagerness=eagerness,
            adapter=adapter,
            time_budget_ms=TIME_BUDGET_MS,
        )
        for _ in range(TRIES):
            began = time.perf_counter()
            answer = await client.next_edit(request)
            latency_ms = 1000 * (time.perf_counter() - began)
            if answer.silence is not EditSilence.SUPERSEDED:
                break
            await asyncio.sleep(RETRY_S)
        edit = answer.edit
        return EditAnswer(
            change=None if edit is None else LineChange(edit.start, split_lines(edit.old), split_lines(edit.new)),
            silence=answer.silence or "",
            detail=answer.detail,
            why="" if edit is None else edit.why,
            confidence=answer.confidence,
            tokens=answer.tokens,
            mean_log_probability=mean_of(answer.log_probability, answer.tokens),
            timings=answer.timings,
            latency_ms=latency_ms,
        )

    return ask


def mean_of(total: float | None, count: int) -> float | None:
    """Return the mean of a known total."""
    return None if total is None or not count else round(total / count, 4)


async def _fill(client: DaemonClient, scenario: EditScenario) -> EditAnswer:
    lines, line, column = scenario.lines, scenario.line, scenario.column
    above, below = lines[:line], lines[line + 1 :]
    request = CompleteRequest(
        prefix="".join(f"{each}\n" for each in above) + lines[line][:column],
        suffix=lines[line][column:] + "\n" + "".join(f"{each}\n" for each in below),
        task=Task.FILL,
        language=scenario.language,
        path=scenario.path,
        document=scenario.id,
        eagerness=EAGERNESS,
        time_budget_ms=TIME_BUDGET_MS,
    )
    began = time.perf_counter()
    answer = await client.complete(request)
    return EditAnswer(
        change=insertion(lines, line, column, answer.text, over=answer.replace_after),
        confidence=answer.confidence,
        tokens=answer.timings.decode_tokens,
        timings=answer.timings,
        latency_ms=1000 * (time.perf_counter() - began),
    )


async def _nothing(client: DaemonClient, scenario: EditScenario) -> EditAnswer:
    return EditAnswer()


_POLICIES = (
    EditPolicy("ours", "next edits at the editors' default eagerness", _next_edit(EAGERNESS), question="next-edit"),
    EditPolicy("ours-all", "the same, however unsure the model is", _next_edit(None), question="next-edit"),
    EditPolicy("fill", "a completion at the cursor, at the editors' default eagerness", _fill, question="fill"),
    EditPolicy("nothing", "no suggestion, ever", _nothing),
)
POLICIES = {policy.name: policy for policy in _POLICIES}
DEFAULT = tuple(POLICIES)
