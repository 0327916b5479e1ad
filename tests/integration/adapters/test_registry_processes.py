"""Several processes change one registry at the same time; nobody's change is lost and no reader sees a half one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from peft_core.api_types import Task
from peft_daemon.adapters.registry import AdapterRegistry
from support.synthetic_adapter import TinyModel, lora, write_peft

WRITER = """
import json, sys
from pathlib import Path
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_core.api_types import Task

orders = json.loads(sys.argv[1])
base = BaseModel("tiny", orders["sha256"], Path(orders["base"]))
registry = AdapterRegistry(Path(orders["registry"]))
print("ready", flush=True)
sys.stdin.readline()
for i in range(orders["rounds"]):
    for folder in orders["folders"]:
        registry.import_(Path(folder), name="shared", base=base)
        registry.import_(Path(folder), name=f"{orders['me']}-{i}", base=base)
    registry.use("shared", Task.FILL)
    registry.use(f"{orders['me']}-{i}", Task(orders["task"]), Path(orders["mine"]))
"""

LIGHT = """
import sys
from pathlib import Path
from peft_daemon.adapters.registry import AdapterRegistry
from peft_core.api_types import Task

registry = AdapterRegistry(Path(sys.argv[1]))
manifest = registry.resolve(Task.FILL, "/some/where.py")
assert manifest is not None and registry.lease(manifest).path.exists() and registry.list_adapters()
heavy = {"numpy", "gguf", "safetensors", "filelock", "torch", "typer", "rich"}
print(sorted(heavy & sys.modules.keys()))
"""

ROUNDS = 4


def test_no_change_is_lost_and_every_read_is_whole(tmp_path: Path) -> None:
    base = TinyModel.random().write(tmp_path / "base.gguf")
    folders = {
        me: [str(write_peft(tmp_path / f"{me}{seed}", lora(seed=seed))) for seed in seeds]
        for me, seeds in {"one": (1, 2), "two": (3, 4)}.items()
    }
    writers = []
    for me, task in (("one", Task.FILL), ("two", Task.INTENT)):
        orders = {
            "registry": str(tmp_path / "registry"),
            "base": str(base.path),
            "sha256": base.sha256,
            "me": me,
            "mine": str(tmp_path),
            "task": task.value,
            "folders": folders[me],
            "rounds": ROUNDS,
        }
        writers.append(
            subprocess.Popen(
                [sys.executable, "-c", WRITER, json.dumps(orders)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    registry = AdapterRegistry(tmp_path / "registry")
    while any(writer.poll() is None for writer in writers):
        for manifest in (registry.resolve(Task.FILL), registry.resolve(Task.INTENT, str(tmp_path / "x.py"))):
            assert manifest is None or registry.lease(manifest).path.read_bytes()[:4] == b"GGUF"
        registry.list_adapters()
    for writer in writers:
        assert writer.wait() == 0
        for stream in (writer.stdin, writer.stdout):
            assert stream is not None
            stream.close()
    own = {f"{me}-{i}" for me in folders for i in range(ROUNDS)}
    assert {row.name for row in registry.list_adapters()} == own | {"shared"}
    assert {version.digest for version in registry.history("shared")} == {
        row.digest for row in registry.list_adapters()
    } | {registry.history(f"{me}-0")[0].digest for me in folders}
    for me, task in (("one", Task.FILL), ("two", Task.INTENT)):
        used = registry.resolve(task, str(tmp_path / "x.py"))
        assert used is not None
        assert used.name == f"{me}-{ROUNDS - 1}"


def test_answering_a_request_loads_no_heavy_library(tmp_path: Path) -> None:
    base = TinyModel.random().write(tmp_path / "base.gguf")
    registry = AdapterRegistry(tmp_path / "registry")
    registry.import_(write_peft(tmp_path / "peft"), name="mine", base=base)
    registry.use("mine", repository=tmp_path)
    registry.use("mine")
    answer = subprocess.run(
        [sys.executable, "-c", LIGHT, str(tmp_path / "registry")], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
