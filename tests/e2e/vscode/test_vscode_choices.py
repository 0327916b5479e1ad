"""What is chosen for the daemon and seen of it: model, server, its settings, and the view of repositories."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from peft_core.api_types import Task
from peft_core.paths import Paths
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.learning.state import LearnedVersion, LearningStore
from support.own_repository import OwnRepository, module
from support.played_upstream import events_answer, json_answer, played_upstream
from support.running_daemon import run_cli
from support.synthetic_adapter import TinyModel
from support.vscode_window import Window

BASE_SETTING = "base"
QWEN_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a little code."""
    own = OwnRepository(tmp_path_factory.mktemp("project") / "shop")
    for number in range(3):
        own.commit({f"shop/module_{number}.py": module(number)}, when=1_700_000_000 + 86_400 * number)
    return own.root


def config_file(environ: Mapping[str, str]) -> Path:
    return Paths.from_environment(environ).config_file


def written(environ: Mapping[str, str]) -> str:
    file = config_file(environ)
    return file.read_text() if file.exists() else ""


@contextmanager
def completion_server() -> Iterator[str]:
    """The address of a server with one model that writes the same code each time; it runs in a thread of its own."""
    ready, stop, addresses = threading.Event(), threading.Event(), list[str]()

    async def serve() -> None:
        text = events_answer({"choices": [{"text": " a + b", "finish_reason": "stop"}]}, "[DONE]")
        routes = {
            "/v1/models": lambda _: json_answer({"data": [{"id": "qwen2.5-coder"}]}),
            "/v1/completions": lambda _: text,
        }
        async with played_upstream(routes) as server:
            addresses.append(server.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield addresses[0]
    finally:
        stop.set()
        thread.join()


def test_a_setting_of_the_daemon_is_written_into_its_file_and_taken_back(
    window: Window, environ: Mapping[str, str]
) -> None:
    window.run("peft-daemon: Change Settings of the Daemon")
    box = window.page.locator(".quick-input-widget input").first
    window.picks()
    box.fill("learn_idle_s")
    window.pick("seconds without a request before learning")
    box.fill("none")
    window.page.locator(".quick-input-widget", has_text="A whole number from 1 to 86400").wait_for()
    box.fill("300")
    window.keys("Enter")
    window.until(window.notifications, lambda shown: any("learn_idle_s is 300" in each for each in shown), "message")
    assert "learn_idle_s = 300\n" in written(environ)
    window.wait_status("idle", timeout_ms=240_000)
    window.press_message("learn_idle_s is 300 now.", "Undo")
    window.until(lambda: written(environ), lambda text: "learn_idle_s" not in text, "file as before")
    window.wait_status("idle", timeout_ms=240_000)


def test_models_are_shown_with_what_this_machine_does_with_them_and_a_server_can_take_over(
    window: Window, environ: Mapping[str, str]
) -> None:
    with completion_server() as address:
        window.run("peft-daemon: Choose Model and Engine")
        offered = window.until(
            lambda: "\n".join(window.picks()),
            lambda text: "recommended for this machine" in text,
            "measurement",
            240_000,
        )
        # How fast each is has a unit test: a machine that is too busy to be measured says so.
        assert "qwen2.5-coder-0.5b-instruct" in offered and "in use" in offered and "821 MB of memory" in offered
        assert "qwen2.5-coder-1.5b-instruct" in offered and "1.1 GB to fetch" in offered
        box = window.page.locator(".quick-input-widget input").first
        box.fill("Connect to a server")
        window.pick("Connect to a server")
        window.page.locator(".quick-input-widget", has_text="none of your code is sent").wait_for()
        box.fill(address)
        window.keys("Enter")
        asked = window.dialog()
        assert f"Let {address} answer?" in asked and "NOT encrypted" in asked and "qwen2.5-coder" in asked
        assert "upstream" not in written(environ), "nothing is kept before the user agrees"
        window.answer("Send My Code There")
        window.until(
            window.notifications, lambda shown: any("answers from now on" in each for each in shown), "message"
        )
        assert f'upstream_url = "{address}"' in written(environ) and 'engine = "upstream"' in written(environ)
        window.press_message("answers from now on.", "Undo")
        window.until(lambda: written(environ), lambda text: "upstream" not in text, "file as before")
    window.wait_status("idle", timeout_ms=240_000)
    assert run_cli("status", environment=environ).returncode == 0


def test_a_model_of_ollama_answers_after_one_choice_and_is_taken_back(
    window: Window, environ: Mapping[str, str]
) -> None:
    store = Path(environ["OLLAMA_MODELS"])
    (store / "blobs").mkdir(parents=True)
    file = TinyModel.random(seed=5).write(store / "blobs/tiny", control=QWEN_FIM).path
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.rename(store / f"blobs/sha256-{digest}")
    manifest = store / "manifests/registry.ollama.ai/library/tiny/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))

    window.run("peft-daemon: Choose Model and Engine")
    box = window.page.locator(".quick-input-widget input").first
    window.picks()
    box.fill("of Ollama")
    window.pick("Use tiny:1b of Ollama")
    window.until(
        window.notifications, lambda shown: any("tiny-1b answers from now on" in each for each in shown), "message"
    )
    window.wait_status("idle, tiny-1b", timeout_ms=240_000)
    assert 'model = "tiny-1b"' in written(environ)
    window.press_message("tiny-1b answers from now on.", "Undo")
    window.wait_status("idle, qwen2.5-coder-0.5b-instruct", timeout_ms=240_000)
    assert "model" not in written(environ)
    run_cli("models", "remove", "tiny-1b", environment=environ)


def test_the_view_says_what_serves_and_its_buttons_learn_and_roll_back(
    window: Window, environ: Mapping[str, str], folder: Path
) -> None:
    paths = Paths.from_environment(environ)
    registry, store, root = AdapterRegistry(paths.adapters), LearningStore(paths), folder.resolve()
    digest = registry.get("code-fim").digest
    registry.use("code-fim", Task.FILL, root)
    version = LearnedVersion(digest=digest, since=1.0, before="", setting_before=BASE_SETTING)
    store.change(
        str(root),
        lambda state: msgspec.structs.replace(
            state, serving=version, adapter="code-fim", outcomes={digest: "1101", "": "10"}
        ),
    )
    window.side_bar("peft-daemon")
    window.row("Serves: code-fim, since ").wait_for()
    window.row("Accepted: 75 % of 4 suggestions, 50 % of 2 before").wait_for()
    assert [row for row in window.rows() if row.startswith("conala: ")]

    window.row("Learning: not switched on").wait_for()
    window.press("Learning", "Learn This Repository in the Background")
    window.row("Learning: waits: ").wait_for()
    window.press("Learning", "Pause Learning")
    window.row("Learning: paused").wait_for()
    window.press("Learning", "Go On Learning")
    window.row("Learning: waits: ").wait_for()
    window.press("Learning", "Stop Learning This Repository")
    window.row("Learning: switched off").wait_for()

    window.press("Serves", "Roll Back to What Served Before")
    window.row("Serves: the model without an adapter").wait_for()
    window.row("Log").click()
    window.until(window.rows, lambda rows: any("you asked for it" in row for row in rows), "entry of the log")
    window.press("code-fim", "Use This Adapter in the Folder")
    window.row("Serves: code-fim").wait_for()
