"""A copy of the real model: judged against it by real engines, served in its place with its adapters, and given up."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from peft_core.settings import Settings
from peft_daemon.models import catalogue
from peft_daemon.models.content import VERIFIED_RECORD_FILE
from peft_daemon.models.optimized import CopyFigures, publish_optimized
from peft_daemon.models.store import ModelStore
from peft_daemon.requantize.comparison import CopyQuality
from peft_daemon.requantize.copy import get_recipe
from peft_daemon.requantize.optimizer import JudgingOptions, Optimizer
from support.running_daemon import RunningDaemon, run_cli, start_daemon

pytestmark = [pytest.mark.model, pytest.mark.long, pytest.mark.timeout(1500)]

SETTINGS = Settings()
ENTRY = catalogue.get(SETTINGS.model)


@pytest.fixture(scope="module")
def store(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store of its own with the real file: other tests must not find the copy."""
    folder = tmp_path_factory.mktemp("models")
    (folder / ENTRY.id).mkdir()
    try:
        os.link(model_file, folder / ENTRY.id / model_file.name)
    except OSError:
        shutil.copy2(model_file, folder / ENTRY.id)
    shutil.copy2(model_file.parent / VERIFIED_RECORD_FILE, folder / ENTRY.id)
    return ModelStore(folder, offline=True)


@pytest.fixture(scope="module")
def judged(store: ModelStore) -> CopyQuality:
    """Written and judged on two excerpts, which is enough to see that both engines answer; then kept."""
    optimizer = Optimizer(store, ENTRY, SETTINGS, JudgingOptions(excerpts=2), lambda event: None)
    copy = optimizer.write(get_recipe("iq4_nl-mlp"))
    found = asyncio.run(optimizer.judge(copy))
    publish_optimized(
        store.path(ENTRY).parent,
        copy,
        name="model",
        source_sha256=ENTRY.sha256,
        adapter="",
        figures=CopyFigures(
            reading=1,
            writing=1,
            loss=found.loss,
            loss_bound=found.loss_bound,
            places=found.places,
            lines=found.lines,
            right=found.right,
            right_original=found.right_original,
            same=found.same,
        ),
        versions={},
        processor="",
    )
    return found


@pytest.fixture(scope="module")
def daemon(judged: CopyQuality, store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    home = tmp_path_factory.mktemp("o")
    environment = {"PEFT_DAEMON_HOME": str(home), "PEFT_DAEMON_MODELS_DIR": str(store.folder)}
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


@pytest.mark.long
def test_the_copy_is_another_model_but_nearly_as_good(judged: CopyQuality) -> None:
    assert judged.places > 20
    assert judged.loss != 0
    assert abs(judged.loss) < 0.15
    assert judged.same > judged.lines / 2


def test_the_daemon_serves_the_copy(daemon: RunningDaemon, store: ModelStore) -> None:
    asked = {"prefix": "def add(a, b):\n    return ", "suffix": "\n", "task": "fill", "max_tokens": 8}
    with daemon.http() as http:
        answer = http.post("/v1/complete", json={**asked, "adapter": "base"}).raise_for_status().json()
    assert answer["text"].startswith("a + b")
    children = psutil.Process(daemon.pid).children(recursive=True)
    mapped = {Path(each.path).name for child in children for each in child.memory_maps() if ".gguf" in each.path}
    assert store.file_to_serve(ENTRY, SETTINGS).path.name in mapped
    assert ENTRY.file not in mapped


def test_an_adapter_of_the_original_serves_on_it(daemon: RunningDaemon) -> None:
    asked = {"prefix": "def add(a, b):\n    return ", "suffix": "\n", "task": "fill", "max_tokens": 8}
    daemon.cli("adapters", "show", "code-fim")
    with daemon.http() as http:
        answer = http.post("/v1/complete", json={**asked, "adapter": "code-fim"}).raise_for_status().json()
    assert answer["adapter"]["name"] == "code-fim"
    assert answer["text"]


def test_listing_shows_it_and_removing_gives_the_original_back(daemon: RunningDaemon, store: ModelStore) -> None:
    def listed() -> str | None:
        rows = json.loads(daemon.cli("models", "list", "--json").stdout)
        return next(row["optimized"] for row in rows if row["id"] == ENTRY.id)  # type: ignore[no-any-return]

    assert listed() == "iq4_nl-mlp"
    freed = json.loads(daemon.cli("models", "optimize", "--remove", "--json").stdout)["freed_bytes"]
    assert freed > 400_000_000
    assert listed() is None
    assert store.file_to_serve(ENTRY, SETTINGS).path == store.path(ENTRY)
    again = daemon.cli("models", "optimize", "--remove", check=False)
    assert again.returncode == 3
    assert "no optimized copy" in again.stderr
