"""``peft-daemon models add`` and ``found``, run as a user runs them: a file, a hub, another program's store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_servers import FileServer, Reply

from support.running_daemon import run_cli
from support.tiny_served import tiny_gguf

QWEN_FIM = (
    *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<|endoftext|>"),
)
COMMIT = "0123456789abcdef" * 2 + "01234567"

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows Qwen's control tokens for holes."""
    return tiny_gguf(tmp_path_factory.mktemp("coder"), context=1024, control=QWEN_FIM).path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PEFT_DAEMON_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("PEFT_DAEMON_SHIPPED_ADAPTERS", "false")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def models(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "peft_daemon", "models", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def listed() -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads(models("list", "--json").stdout)}


def publish(hub: FileServer, content: bytes, *files: str, licence: str = "mit") -> str:
    """A repository ``owner/repo`` with these files, all with the same content; the path of the first."""
    sha256 = hashlib.sha256(content).hexdigest()
    siblings = [{"rfilename": name, "lfs": {"sha256": sha256, "size": len(content)}} for name in files]
    answer = {"sha": COMMIT, "siblings": [*siblings, {"rfilename": "README.md"}], "cardData": {"license": licence}}
    for revision in ("main", COMMIT, "v1"):
        hub.files[f"/api/models/owner/repo/revision/{revision}?blobs=true"] = json.dumps(answer).encode()
    for name in files:
        hub.files[f"/owner/repo/resolve/{COMMIT}/{name}"] = content
    return f"/owner/repo/resolve/{COMMIT}/{files[0]}"


def test_a_file_is_added_where_it_lies_and_answers(home: Path, coder: Path) -> None:
    done = models("add", str(coder), "--name", "mine", "--json")
    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert (added["id"], added["path"], added["family"]) == ("mine", str(coder), "qwen2")
    assert (added["fill_format"], added["context_tokens"]) == ("qwen-fim-v1", 1024)
    row = listed()["mine"]
    assert (row["installed"], row["path"], row["sha256"]) == (True, str(coder), added["sha256"])
    assert not list(home.rglob("*.gguf"))

    own = {"PEFT_DAEMON_MODEL": "mine", "PEFT_DAEMON_THREADS": "1"}
    code = home / "a.py"
    code.write_text("def f(x):\n    return \n")
    where = ("--file", str(code), "--line", "2", "--column", "12", "--max-tokens", "4", "--json")
    answer = json.loads(run_cli("complete", *where, environment=own).stdout)
    assert (answer["model"], answer["task"]) == ("mine", "fill")
    run_cli("stop", environment=own)


IO = """
import atexit, pathlib, sys
from peft_cli import main
atexit.register(lambda: print(pathlib.Path("/proc/self/io").read_text(), file=sys.stderr))
main()
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say what a process read")
def test_a_file_is_read_as_a_whole_only_once(home: Path, coder: Path) -> None:
    large, size = home / "large.gguf", 400_000_000
    large.write_bytes(coder.read_bytes())
    os.truncate(large, size)
    done = subprocess.run(
        [sys.executable, "-c", IO, "models", "add", str(large), "--no-check"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (read,) = (int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("rchar:"))
    assert size < read < 1.5 * size
    assert listed()["large"]["installed"]


@pytest.mark.long
def test_it_can_be_tuned_and_evaluated_and_its_adapter_meets_no_other_base(home: Path, coder: Path) -> None:
    assert models("add", str(coder), "--name", "mine", "--no-check").returncode == 0
    own = {"PEFT_DAEMON_MODEL": "mine", "PEFT_DAEMON_THREADS": "1"}
    rows = [
        {"intent": f"add {n}", "code": f"x+{n}", "split": split} for n, split in enumerate(["train"] * 4 + ["test"] * 3)
    ]
    data = home / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = ("--max-steps", "2", "--batch-size", "1", "--threads", "1", "--no-activate", "--json")
    run_cli("tune", "--dataset", str(data), "--name", "small", *few, environment=own)
    shown = json.loads(run_cli("adapters", "show", "small", "--json", environment=own).stdout)["manifest"]
    assert (shown["base"], shown["base_sha256"]) == ("mine", listed()["mine"]["sha256"])
    refused = run_cli("adapters", "use", "small", environment={}, check=False)
    assert (refused.returncode, "mine" in refused.stderr) == (5, True), refused.stderr
    grouped = run_cli("adapters", "list", environment=own).stdout
    assert grouped.index("mine") < grouped.index("small")

    asked = ("--strategy", "zero-shot", "--strategy", "adapter:small", "--max-tokens", "2", "--json")
    told = run_cli("evaluate", "--dataset", str(data), *asked, environment=own).stdout.splitlines()
    report = json.loads(told[-1])
    assert [each["id"] for each in report["strategies"]] == ["zero-shot", "adapter:small"]


def test_a_model_that_was_added_can_be_taken_out_again(home: Path, coder: Path) -> None:
    assert models("add", str(coder), "--no-check").returncode == 0
    again = models("add", str(coder), "--no-check")
    assert (again.returncode, "this file is the model 'qwen2'" in again.stderr) == (5, True)
    assert models("remove", "qwen2").returncode == 0
    assert coder.is_file()
    assert "qwen2" not in listed()


def test_a_file_of_the_hub_is_pinned_fetched_and_never_changes_silently(
    home: Path, hub: FileServer, coder: Path
) -> None:
    path = publish(hub, coder.read_bytes(), "coder-Q8_0.gguf")
    done = models("add", "hf:owner/repo", "--no-check", "--json")
    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert (added["id"], added["licence"]) == ("coder-q8_0", "mit")
    assert Path(added["path"]).read_bytes() == coder.read_bytes()
    assert hub.requests(path)

    hub.files[path] = b"GGUF" + bytes(len(coder.read_bytes()) - 4)
    assert models("remove", "coder-q8_0").returncode == 0
    other = models("add", "hf:owner/repo@v1", "--no-check")
    assert (other.returncode, "wrong data" in other.stderr) == (8, True)
    assert "coder-q8_0" not in listed()


def test_which_file_is_asked_where_there_are_several(home: Path, hub: FileServer, coder: Path) -> None:
    publish(hub, coder.read_bytes(), "a-Q4_K_M.gguf", "q8/a-Q8_0.gguf")
    done = models("add", "hf:owner/repo", "--no-check")
    assert (done.returncode, "a-Q4_K_M.gguf, q8/a-Q8_0.gguf" in done.stderr) == (2, True)
    assert models("add", "hf:owner/repo/q8/a-Q8_0.gguf", "--no-check").returncode == 0
    assert "a-q8_0" in listed()


def test_what_is_known_already_is_not_fetched(home: Path, hub: FileServer, coder: Path) -> None:
    path = publish(hub, coder.read_bytes(), "a.gguf")
    assert models("add", str(coder), "--no-check").returncode == 0
    done = models("add", "hf:owner/repo", "--no-check")
    assert (done.returncode, "this file is the model 'qwen2'" in done.stderr) == (5, True)
    assert not hub.requests(path)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=404), "HTTP 404"),
        (Reply(status=401), "HTTP 401"),
        (Reply(content=b"<html>sign in</html>"), "not JSON"),
        (Reply(content=b'{"sha": "main", "siblings": []}'), "has no .gguf file"),
        (Reply(content=b'{"siblings": 3}'), "answered something else"),
    ],
)
def test_a_hub_that_does_not_say_leaves_nothing(home: Path, hub: FileServer, reply: Reply, message: str) -> None:
    path = "/api/models/owner/repo/revision/main?blobs=true"
    hub.files[path] = b"{}"
    hub.answer(path, reply)
    done = models("add", "hf:owner/repo", "--no-check")
    assert done.returncode in (2, 8)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (home / "h" / "data" / "models.json").exists()


def test_a_model_of_ollama_is_added_by_its_name_and_listed_as_found(home: Path, coder: Path) -> None:
    digest = hashlib.sha256(coder.read_bytes()).hexdigest()
    store = home / ".ollama/models"
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(coder.read_bytes())
    manifest = store / "manifests/registry.ollama.ai/library/tiny/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    (row,) = json.loads(models("found", "--json").stdout)
    assert (row["program"], row["name"], row["path"], row["model"]) == ("Ollama", "tiny:1b", str(blob), None)
    done = models("add", "ollama:tiny:1b", "--no-check", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "tiny-1b"
    assert json.loads(models("found", "--json").stdout)[0]["model"] == "tiny-1b"


def test_what_cannot_be_a_model_is_refused_in_one_line_and_nothing_is_added(home: Path, coder: Path) -> None:
    short = home / "short.gguf"
    short.write_bytes(coder.read_bytes()[:-1000])
    page = home / "page.gguf"
    page.write_text("<html>")
    plain = tiny_gguf(home).path
    for file, message in (
        (short, "is cut short"),
        (page, "not a readable GGUF file"),
        (home / "nothing.gguf", "no model file"),
        (plain, "--fill-format"),
    ):
        done = models("add", str(file))
        assert (done.returncode in (2, 3), message in done.stderr) == (True, True), done.stderr
        assert "Traceback" not in done.stderr
    assert not (home / "h" / "data" / "models.json").exists()


def test_a_file_that_the_engine_cannot_load_is_refused(home: Path, coder: Path) -> None:
    strange = home / "strange.gguf"
    content = coder.read_bytes()
    strange.write_bytes(content.replace(b"qwen2", b"zwen2"))
    done = models("add", str(strange))
    assert (done.returncode, "the engine cannot use" in done.stderr) == (2, True), done.stderr
    assert not (home / "h" / "data" / "models.json").exists()
