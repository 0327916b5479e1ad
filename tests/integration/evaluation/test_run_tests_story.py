"""``evaluate --repo --run-tests`` from holes to report, with a tiny random model that is right about nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.validation import BaseModel
from peft_evaluation.datasets.catalogue import load_repository
from peft_evaluation.repo_tests import preparation
from peft_evaluation.repo_tests.preparation import PACK, RepositoryTestsRequest
from peft_evaluation.report import store
from peft_evaluation.runner import (
    AnswerVerified,
    EvaluateRequest,
    EvaluationEvent,
    SampleAnswered,
    evaluate,
    evaluation_folder,
)
from peft_evaluation.sandbox.sandboxes import Bubblewrap
from peft_tuning.data.datasets.sources import SEED
from support.running_daemon import run_cli
from support.tested_repository import ARGUMENTS, shop
from support.tiny_installation import TinyInstallation
from support.tiny_served import tiny_gguf

pytestmark = pytest.mark.torch
CONTEXT = 16_384


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop(tmp_path_factory.mktemp("story") / "shop").root


class RoomyPlace(TinyInstallation):
    """Its base, to which nearly every character is a token, reads the whole repository."""

    @property
    def base(self) -> BaseModel:
        path = self.paths.cache / "qwen2.gguf"
        if not path.exists():
            path.parent.mkdir(parents=True)
            tiny_gguf(path.parent, context=CONTEXT)
        return super().base


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> TinyInstallation:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path_factory.mktemp("home"))})
    return RoomyPlace(settings=Settings(context_tokens=CONTEXT), paths=paths)


def request(repository: Path, **changes: object) -> EvaluateRequest:
    facts: dict[str, object] = {
        "name": "shop",
        "load_items": lambda on_progress: load_repository(repository, SEED, on_progress),
        "strategies": ("zero-shot",),
        "own_tests": RepositoryTestsRequest(repository=repository, arguments=ARGUMENTS),
        "pass_at": (1,),
        "max_tokens": 8,
    }
    return EvaluateRequest(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.long
def test_holes_that_tests_reach_have_pass_at_1_beside_what_all_holes_have(
    repository: Path, installation: TinyInstallation
) -> None:
    told: list[EvaluationEvent] = []
    report = evaluate(request(repository), installation, told.append)
    (strategy,) = report.strategies
    tested = [item for item in report.items if item.answers[0].outcomes]
    assert 0 < len(tested) < len(report.items)
    assert all(item.id.startswith("shop/prices.py") for item in tested)
    assert any(item.id.startswith("shop/untested.py") for item in report.items)
    assert strategy.metrics["pass@1"].count == len(tested)
    assert strategy.metrics["pass@1"].value == sum(a.outcomes[0] == "passed" for i in tested for a in i.answers)
    assert strategy.metrics["em@1"].count == strategy.metrics["similarity"].count == len(report.items)
    assert any("pass@1" in figures for figures in strategy.groups.values())
    assert report.sandbox == "bubblewrap"
    assert report.data.notes[-2].startswith(f"{len(tested)} of {len(report.items)} holes are exercised by your tests")
    assert f"pass@k is of the {len(tested)} of {len(report.items)} holes that your tests exercise." in report.warnings
    assert len([event for event in told if isinstance(event, AnswerVerified)]) == len(tested)
    where = evaluation_folder(installation, "shop")
    assert store.read_report(where) == report
    assert not (where / PACK).exists()

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched, pytest.raises(Conflict, match="--resume"):
        patched.setattr(preparation, "report_suite", None)
        evaluate(request(repository), installation, told.append)
    told.clear()
    with monkey.context() as patched:
        patched.setattr(preparation, "report_suite", None)
        again = evaluate(request(repository, resume=True), installation, told.append)
    assert not [event for event in told if isinstance(event, SampleAnswered | AnswerVerified)]
    assert again.data.digest == report.data.digest
    assert again.strategies == report.strategies


def test_without_a_sandbox_the_model_is_not_asked(
    repository: Path, tmp_path: Path, installation: TinyInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[EvaluationEvent] = []
    own = {"name": "unsafe", "load_items": lambda _tell: pytest.fail("not read")}
    with pytest.raises(NotFound, match="bubblewrap is not installed"):
        Bubblewrap()
    with pytest.raises(NotFound, match="bubblewrap is not installed"):
        evaluate(request(repository, **own), installation, told.append)
    with pytest.raises(InvalidInput, match="run only in a sandbox"):
        evaluate(request(repository, **own, allow_unsandboxed=True), installation, told.append)
    assert not told and not evaluation_folder(installation, "unsafe").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--dataset", "humaneval", "--run-tests"), "--run-tests is for a repository", 2),
        (("--repo", ".", "--run-tests", "--allow-unsandboxed"), "run only in a sandbox", 2),
        (("--repo", ".", "--pytest-args", "tests"), "need --run-tests", 2),
        (("--repo", ".", "--python", "python"), "need --run-tests", 2),
        (("--repo", ".", "--run-tests", "--pytest-args", "'tests"), "No closing quotation", 2),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str, code: int
) -> None:
    result = run_cli("evaluate", *arguments, environment={"PEFT_DAEMON_HOME": str(tmp_path)}, check=False)
    assert (result.returncode, message in result.stderr) == (code, True), result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
