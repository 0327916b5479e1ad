"""The daemon's learner: only with a yes, only when idle and due; stopped at once, resumed, and taken back.

Runs are real processes that a script plays; the machine is played too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from peft_core.api_types import (
    AdapterUse,
    CompleteResponse,
    FeedbackRequest,
    FinishReason,
    LearningAction,
    LearningRequest,
    Outcome,
    Task,
)
from peft_core.errors import Conflict, InvalidInput, NotFound, Unavailable
from peft_core.paths import Paths
from peft_core.status_types import LearningActivity, LearningChoice
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.learning import learner as learner_module
from peft_daemon.learning import service as service_module
from peft_daemon.learning.conditions import MachineState
from peft_daemon.learning.versions import serving_now
from support.own_repository import OwnRepository
from support.waiting import until
from unit.learning.conftest import LearnerHere

Make = Callable[..., LearnerHere]
Store = Callable[[str, int], Manifest]
FIGURES = {"holes": 96, "exact": 0.2, "nats": 1.0}
VERDICT = {"type": "verdict", "reason": "better", "opponent": "base", "served": FIGURES, "adapter": FIGURES}


def registered(manifest: Manifest, *, in_use: bool = True) -> dict[str, object]:
    return {"type": "registered", "name": manifest.name, "digest": manifest.digest, "in_use": ["fill"] * in_use}


def feedback(offer: str, outcome: Outcome, digest: str) -> FeedbackRequest:
    adapter = AdapterUse("a", digest, 1.0) if digest else None
    return FeedbackRequest(
        offer=offer, outcome=outcome, language="python", suggestion="x", shown=1, model="m", adapter=adapter
    )


def response(offer: str) -> CompleteResponse:
    return CompleteResponse(
        id=offer, text="x", finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=None
    )


def put_in_use(store: Store, registry: AdapterRegistry, shop: OwnRepository) -> Manifest:
    """Do what a run does that made an adapter which won."""
    made = store("shop-learned", 1)
    registry.use("shop-learned", Task.FILL, shop.root)
    return made


async def ended(here: LearnerHere) -> None:
    await until(lambda: here.learner.current is None, "the end of the run")


async def test_nothing_is_learned_without_a_yes(make_learner: Make) -> None:
    for setting in ("ask", "off"):
        here = make_learner(learn=setting)
        here.learner.shown(here.root, response("1"))
        assert await here.learner._look() is None
        assert here.commands == [] and (await here.here()).activity is LearningActivity.OFF
    assert "by the setting" in (await here.act(LearningAction.ON)).line
    assert await here.learner._look() is None


async def test_a_repository_that_is_switched_on_is_learned_and_then_waits_for_new_code(
    here: LearnerHere, store: Store, shop: OwnRepository, registry: AdapterRegistry
) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    now = await here.here()
    assert (now.activity, now.pid, now.steps) == (LearningActivity.RUNNING, run.pid, 9)
    assert now.line.startswith("learning shop: step ")
    assert here.commands == [[here.root, "shop-learned", "1800"]]
    made = put_in_use(store, registry, shop)
    here.finish(VERDICT, registered(made))
    await ended(here)
    await until(lambda: (here.learner.waits.get(here.root) or "").startswith("nothing new"), "that it waits")
    state = here.learner.store.get(here.root)
    assert state.serving is not None and state.serving.digest == made.digest and state.peak_bytes == 123
    assert here.events == ["switched", "started", "learned"]
    told = await here.service.status(here.root)
    assert "learned shop at" in told.line and told.here is not None and told.here.in_use
    shop.commit({"new.py": "".join(f"x{n} = {n}\n" for n in range(50))})
    await until(lambda: len(here.commands) == 2, "the next run")


async def test_what_a_run_had_no_time_for_is_learned_by_the_next_one_if_that_one_helps(
    here: LearnerHere, store: Store, shop: OwnRepository, registry: AdapterRegistry
) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    made = put_in_use(store, registry, shop)
    here.finish(VERDICT, {**registered(made), "unlearned": 400})
    await until(lambda: len(here.commands) >= 2, "the next run")
    here.finish(VERDICT, {**registered(made, in_use=False), "unlearned": 300})
    await until(lambda: (here.learner.waits.get(here.root) or "").startswith("nothing new"), "that it waits")


async def test_a_run_goes_on_although_its_minutes_cannot_be_written_down(
    here: LearnerHere, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft_daemon.learning.learner.COUNT_S", 0.0)
    (paths.data / "learning/minutes.json").mkdir(parents=True)
    await here.act(LearningAction.ON)
    run = await here.running()
    current = here.learner.current
    assert current is not None
    step = current.run.progress.step
    await until(lambda: current.run.progress.step > step + 20, "that it goes on")
    here.request()
    await until(lambda: run.status() == psutil.STATUS_STOPPED, "that it still gives way")


async def test_a_run_that_nobody_can_watch_is_ended(here: LearnerHere, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()

    def read(**_kwargs: object) -> MachineState:
        raise ValueError("what nobody thought of")

    monkeypatch.setattr(here.machine, "read", read)
    await ended(here)
    await until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE, "the end of its process")


async def test_a_run_that_came_to_its_end_while_nobody_listened_is_asked_again(
    make_learner: Make, paths: Paths, store: Store, shop: OwnRepository, registry: AdapterRegistry
) -> None:
    here = make_learner()
    await here.act(LearningAction.ON)
    here.learner.start()
    await here.running()
    assert here.learner.current is not None
    here.learner.current.run.kill()
    await ended(here)
    await here.learner.close()
    folder = paths.data / "tuning" / "shop-learned"
    folder.mkdir(parents=True)
    for name in ("run.json", "outcome.json"):
        (folder / name).write_text("{}")
    made = put_in_use(store, registry, shop)
    again = make_learner()
    again.finish(VERDICT, registered(made))
    again.learner.ask(again.root)
    again.learner.start()
    await until(lambda: again.learner.store.get(again.root).serving, "what it learned")
    assert again.commands[-1][-1] == "resume"
    await until(lambda: not folder.exists(), "that the run's files are gone")
    await again.learner.close()


async def test_a_repository_is_one_in_all_its_work_trees_and_the_one_used_last_is_learned(
    here: LearnerHere, store: Store, shop: OwnRepository, registry: AdapterRegistry
) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    made = put_in_use(store, registry, shop)
    here.finish(VERDICT, registered(made))
    await ended(here)
    await until(lambda: (here.learner.waits.get(here.root) or "").startswith("nothing new"), "that it waits")
    feature = str(shop.root.parent / "feature")
    shop.git("worktree", "add", "--quiet", feature, "-b", "feature")
    assert (await here.service.status(feature)).here == await here.here()
    Path(feature, "new.py").write_text("".join(f"x{n} = {n}\n" for n in range(50)))
    for command in (("add", "."), ("commit", "--quiet", "--message=x")):
        shop.git("-C", feature, *command)
    here.learner.shown(feature, response("1"))
    await until(lambda: len(here.commands) == 2, "a run of the commit in the other work tree")
    assert here.commands[1][:2] == [feature, "shop-learned"]
    assert here.learner.store.get(here.root).tree == feature
    assert [state.root for state in here.learner.store.all()] == [here.root]


async def test_what_an_earlier_version_remembers_of_a_further_work_tree_counts_for_the_repository(
    make_learner: Make, shop: OwnRepository, tmp_path: Path
) -> None:
    here = make_learner()
    feature = str(tmp_path / "feature")
    here.learner.store.change(feature, lambda state: msgspec.structs.replace(state, choice=LearningChoice.OFF))
    shop.git("worktree", "add", "--quiet", feature, "-b", "feature")
    state = here.learner.store.get(here.root)
    assert (state.choice, state.work_tree, state.root) == (LearningChoice.OFF, Path(feature), here.root)
    await here.act(LearningAction.ON)
    (only,) = here.learner.store.all()
    assert (only.root, only.choice, only.tree) == (here.root, LearningChoice.ON, "")


async def test_a_run_that_has_begun_by_itself_can_be_asked_for(here: LearnerHere) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    assert not (await here.here()).asked
    assert (await here.act(LearningAction.NOW)).asked
    here.machine.state = replace(here.machine.state, power="battery", others_share=1.0)
    current = here.learner.current
    assert current is not None and current.limit_s == float("inf")
    step = current.run.progress.step
    await until(lambda: current.run.progress.step > step + 20, "that it goes on")
    assert len(here.commands) == 1


async def test_with_the_setting_on_what_is_visited_is_learned_unless_it_was_switched_off(make_learner: Make) -> None:
    here = make_learner(learn="on")
    here.learner.start()
    here.learner.shown(f"{here.root}/shop/part1.py", response("1"))
    await here.running()
    assert (await here.act(LearningAction.OFF)).choice is LearningChoice.OFF
    await ended(here)
    assert here.events[-1] == "ended"
    assert await here.learner._look() is None
    await here.learner.close()


async def test_a_request_stops_the_process_at_once_and_idleness_lets_it_go_on(here: LearnerHere) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    here.request()
    await until(lambda: run.status() == psutil.STATUS_STOPPED, "a stopped process")
    assert (await here.here()).activity is LearningActivity.PAUSED
    assert here.service.line().endswith(" of 9, paused (you use completions)")
    await until(lambda: run.status() != psutil.STATUS_STOPPED, "the process, going on")
    assert here.events == ["switched", "started", "paused", "continued"]
    assert here.learner.is_running


async def test_a_pause_stops_the_run_at_once_until_it_is_resumed_also_by_another_daemon(
    here: LearnerHere, make_learner: Make, tmp_path: Path
) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    told = await here.act(LearningAction.PAUSE)
    assert told.activity == LearningActivity.PAUSED
    await until(lambda: run.status() == psutil.STATUS_STOPPED, "that it stops")
    assert "you paused it until `peft-daemon learn resume`" in told.line
    # Nothing but the user's word lets it go on.
    assert here.learner.current is not None
    await here.learner._decide(here.learner.current)
    assert run.status() == psutil.STATUS_STOPPED
    other = make_learner()
    elsewhere = LearningRequest(action=LearningAction.PAUSE, repository=str(tmp_path), seconds=3_600)
    status = await other.service.act(elsewhere)
    assert status.here is None and status.paused.startswith("until ") and status.paused in status.line
    assert (await other.here()).line.startswith("waits: you paused it until ")
    assert other.events[-3:] == ["switched", "paused", "switched"]
    await here.act(LearningAction.RESUME)
    await until(lambda: run.status() != psutil.STATUS_STOPPED, "that it goes on")
    assert (await other.service.status(here.root)).paused == ""


async def test_nothing_begins_in_a_pause_but_what_the_user_asks_for_ends_it(here: LearnerHere) -> None:
    await here.act(LearningAction.PAUSE, seconds=3_600)
    await here.act(LearningAction.ON)
    await until(lambda: here.learner.waits.get(here.root, "").startswith("you paused it until "), "that it waits")
    assert here.commands == []
    await here.act(LearningAction.NOW)
    await here.running()
    assert here.learner.store.pause() is None


async def test_a_run_that_registers_its_adapter_is_stopped_a_moment_later(
    here: LearnerHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    current = here.learner.current
    assert current is not None
    current.run._registering = True
    monkeypatch.setattr("peft_daemon.learning.run.REGISTERING_S", 0.05)
    here.request()
    assert run.status() != psutil.STATUS_STOPPED, "it holds the registry's lock"
    await until(lambda: run.status() == psutil.STATUS_STOPPED, "a stopped process")


@pytest.mark.parametrize(
    ("change", "why"),
    [({"power": "battery"}, "on battery"), ({"free_memory_bytes": 1}, "memory"), ({"free_disk_bytes": 1}, "disk")],
)
async def test_a_run_ends_when_the_machine_needs_it_and_is_resumed_later(
    here: LearnerHere, change: dict[str, object], why: str
) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    step = here.folder / "home" / "data" / "tuning" / "shop-learned" / "checkpoints" / "step-000002"
    step.mkdir(parents=True)
    (step.parents[1] / "run.json").write_text("{}")
    here.machine.state = replace(here.machine.state, **change)  # type: ignore[arg-type]
    await ended(here)
    assert why in here.learner.log.entries()[-1].text
    await until(lambda: why in here.learner.waits.get(here.root, ""), "that it waits")
    assert (await here.here()).activity is LearningActivity.WAITING
    here.machine.state = replace(here.machine.state, power="mains", free_memory_bytes=10**11, free_disk_bytes=10**11)
    if why == "memory":
        await until(lambda: "tries again" in here.learner.waits.get(here.root, ""), "that it waits for long")
        # Noted while the clock was a year ahead.
        wrong = time.time() + 365 * 86_400
        here.learner.store.change(here.root, lambda state: msgspec.structs.replace(state, retry_at=wrong))
    await here.running()
    assert here.commands[-1][-1] == "resume"
    assert here.events == ["switched", "started", "ended", "resumed"]


async def test_a_long_pause_gives_the_memory_back(here: LearnerHere, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    monkeypatch.setattr(learner_module, "MAX_PAUSE_S", 0.05)
    here.request()
    await ended(here)
    assert not run.is_running() and here.events[2:] == ["paused", "ended"]


async def test_a_paused_run_that_has_to_end_takes_no_further_step(here: LearnerHere) -> None:
    await here.act(LearningAction.ON)
    run = await here.running()
    current = here.learner.current
    assert current is not None
    here.request()
    await until(lambda: run.status() == psutil.STATUS_STOPPED, "a stopped process")
    here.machine.state = replace(here.machine.state, power="battery")
    end = await current.run.wait()
    assert end.code == -9 and end.error is None, "killed, not asked"
    await ended(here)
    assert here.events[2:] == ["paused", "ended"]


async def test_the_end_of_the_daemon_ends_the_run_and_the_next_daemon_resumes_it(make_learner: Make) -> None:
    here = make_learner()
    here.learner.start()
    await here.act(LearningAction.ON)
    run = await here.running()
    here.request()
    await here.learner.close()
    assert not run.is_running()
    state = here.learner.store.get(here.root)
    assert state.pending is not None and here.events[-1] == "ended"
    folder = here.folder / "home" / "data" / "tuning" / "shop-learned"
    (folder / "checkpoints" / "step-000002").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    again = make_learner()
    again.learner.start()
    await again.running()
    assert again.commands[-1][-1] == "resume"
    await again.learner.close()


async def test_what_cannot_be_resumed_begins_anew_at_once(here: LearnerHere) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    folder = here.folder / "home" / "data" / "tuning" / "shop-learned"
    (folder / "checkpoints" / "step-000002").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert here.learner.current is not None
    here.learner.current.resumed = True
    here.finish(code=5, error="conflict")
    await until(lambda: len(here.commands) >= 2, "a new run")
    assert here.commands[1] == here.commands[0] and not folder.exists()
    (here.folder / "end").unlink()


async def test_a_failure_is_told_and_not_tried_again_at_once(here: LearnerHere) -> None:
    await here.act(LearningAction.ON)
    await here.running()
    here.finish(code=1, error="error")
    await ended(here)
    await until(lambda: "tries again" in here.learner.waits.get(here.root, ""), "that it waits")
    now = await here.here()
    assert now.last == "failed: it did not work: a reason" and len(here.commands) == 1
    assert "tries again" in now.line


async def test_todays_minutes_are_a_bound_for_all_repositories(make_learner: Make) -> None:
    here = make_learner(learn_minutes=10)
    here.learner.store.add_minutes(4)
    here.learner.start()
    await here.act(LearningAction.ON)
    await here.running()
    assert here.commands[0][2] == f"{6 * 60 * learner_module.BUDGET_SHARE:g}"
    assert here.learner.current is not None
    here.learner.store.add_minutes(5.9)
    here.learner.current.limit_s = 0.0
    await ended(here)
    assert "today's minutes" in here.learner.log.entries()[-1].text
    assert here.learner.store.minutes_today() > 9.9
    await until(lambda: "minutes" in here.learner.waits.get(here.root, ""), "that it waits")
    assert len(here.commands) == 1
    await here.act(LearningAction.NOW)
    await until(lambda: len(here.commands) == 2, "a run that the user asked for")
    await here.learner.close()


async def test_now_is_refused_with_a_reason_where_it_cannot_be(
    here: LearnerHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = OwnRepository(tmp_path / "empty")
    for folder, what in ((empty.root, "no commit yet"), (tmp_path, "not in a git work tree")):
        with pytest.raises(InvalidInput, match=what):
            await here.service.act(LearningRequest(action=LearningAction.NOW, repository=str(folder)))
    here.machine.state = replace(here.machine.state, free_disk_bytes=5)
    with pytest.raises(Unavailable, match="disk"):
        await here.act(LearningAction.NOW)
    monkeypatch.setattr(service_module, "PACKAGES", ("no_such_package",))
    for action in (LearningAction.NOW, LearningAction.ON):
        with pytest.raises(NotFound, match="no_such_package"):
            await here.act(action)
    assert (await here.service.status(here.root)).missing == ["no_such_package"]
    assert here.commands == []


async def test_an_editor_asks_once_and_only_where_there_is_enough(make_learner: Make, tmp_path: Path) -> None:
    here = make_learner()
    assert (await here.here()).ask
    small = OwnRepository(tmp_path / "small")
    small.commit({"one.py": "x = 1\n"})
    told = (await here.service.status(str(small.root))).here
    assert told is not None and not told.ask
    assert not (await here.act(LearningAction.LATER)).ask
    with pytest.raises(Conflict, match="not to be asked"):
        await here.act(LearningAction.LATER)
    state = here.learner.store.get(here.root)
    long_ago = msgspec.structs.replace(state, asked_at=state.asked_at - service_module.ASK_AGAIN_S - 1)
    here.learner.store.change(here.root, lambda _state: long_ago)
    assert (await here.here()).ask, "some weeks later"
    ahead = msgspec.structs.replace(state, asked_at=time.time() + 10 * service_module.ASK_AGAIN_S)
    here.learner.store.change(here.root, lambda _state: ahead)
    assert (await here.here()).ask, "it was asked while the clock was ahead"
    assert not (await make_learner().service.status(str(tmp_path))).here, "in no repository"
    assert not (await here.act(LearningAction.OFF)).ask
    for setting in ("on", "off"):
        assert not (await make_learner(learn=setting).here()).ask


async def test_an_adapter_that_is_accepted_less_often_takes_itself_back(
    here: LearnerHere, store: Store, shop: OwnRepository, registry: AdapterRegistry
) -> None:
    before = store("everywhere", 8)
    registry.use("everywhere", Task.FILL)
    here.machine.state = replace(here.machine.state, idle_s=0.0)
    await here.act(LearningAction.ON)

    async def settle(digest: str, outcomes: list[Outcome]) -> None:
        for number, outcome in enumerate(outcomes):
            offer = f"{digest}{number}"
            here.learner.shown(f"{here.root}/shop", response(offer))
            await here.learner.record(feedback(offer, outcome, digest))

    await settle(before.digest, [Outcome.ACCEPTED, Outcome.PARTLY, Outcome.TYPED, Outcome.REJECTED] * 20)
    here.machine.state = replace(here.machine.state, idle_s=1_000.0)
    await here.running()
    made = put_in_use(store, registry, shop)
    here.finish(VERDICT, registered(made))
    await ended(here)
    await settle(made.digest, [Outcome.REJECTED] * 3)
    assert serving_now(registry, here.root)[1] == "shop-learned", "too few to tell"
    await settle(made.digest, [Outcome.REJECTED] * 60)
    assert serving_now(registry, here.root)[1] is None
    now = await here.here()
    assert now.last.startswith("taken back: accepted 0% of") and "67% of 60 before" in now.last
    assert here.events[-1] == "rolled back" and not now.in_use
    await until(lambda: "nothing new" in here.learner.waits.get(here.root, ""), "that it waits for new code")
    with pytest.raises(Conflict):
        await here.act(LearningAction.ROLLBACK)


async def test_what_nobody_agreed_to_is_not_counted_and_what_is_damaged_does_no_harm(
    make_learner: Make, caplog: pytest.LogCaptureFixture
) -> None:
    here = make_learner()
    here.learner.shown(here.root, response("1"))
    await here.learner.record(feedback("1", Outcome.ACCEPTED, "d"))
    await here.learner.record(feedback("unknown", Outcome.ACCEPTED, "d"))
    assert here.learner.store.all() == []
    await here.act(LearningAction.ON)
    for file in (here.folder / "home" / "data" / "learning").glob("repository-*"):
        file.write_text("{")
    here.learner.start()
    await asyncio.sleep(0)
    assert (await here.here()).choice is LearningChoice.UNASKED
    await here.learner.close()


async def test_without_a_daemon_it_is_told_that_one_is_waited_for(make_learner: Callable[..., LearnerHere]) -> None:
    told = await make_learner().act(LearningAction.ON)
    assert told.line == "waits: a daemon, which editors and `peft-daemon start` start"
