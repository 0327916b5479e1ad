"""The readers of files that somebody else may have written or a disk may have damaged, each with real files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from fuzz import mutation
from peft_core.api_types import FeedbackRequest, Outcome, Task
from peft_core.files import private_folder, write_private
from peft_core.gguf import read_header, read_vocabulary
from peft_core.paths import Paths
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import resolve
from peft_core.settings_file import write_setting
from peft_core.status_types import LearningChoice
from peft_daemon.adapters.blobs import BlobStore, check_adapter
from peft_daemon.adapters.peft_files import copy_adapter_files
from peft_daemon.adapters.registry_state import RegistryFiles
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.completion.detection import fill_or_continue_format_of, instruct_format_of
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore, StateRecord
from peft_daemon.feedback import FeedbackStore, summarize
from peft_daemon.learning.log import LearningEvent, LearningLog
from peft_daemon.learning.state import LearnedVersion, LearningStore, PendingRun, RepositoryState
from peft_daemon.lifecycle.failed_starts import FailedStart, read_failed_starts, record_failed_start, take_exit_error
from peft_daemon.lifecycle.runtime_info import DaemonInfo, TuningNotice, find_running_tuning, publish_info, read_info
from peft_daemon.models.catalogue import Catalogue
from peft_daemon.models.facts import read_facts
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import Journal, read_identity
from peft_evaluation.model import ModelOutput
from peft_evaluation.report.store import EVALUATION
from peft_evaluation.study.definition import read_study
from peft_evaluation.verification import SandboxOutcome, Verification
from peft_tuning.data.datasets import jsonl
from peft_tuning.data.repository.files import ignore_rules
from peft_tuning.job import load_identity
from peft_tuning.learned import documents_learned
from support.synthetic_adapter import TinyModel, lora, write_peft
from support.synthetic_manifest import manifest

Change = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader, the folder of files that it reads, and how each of them is changed."""

    name: str
    prepare: Callable[[Path], object]
    """Fills an empty folder with real files."""
    read: Callable[[Path], object]
    """Reads the folder; what it raises other than a PeftDaemonError is a fault."""
    changes: Mapping[str, Change]
    """By a file's path in the folder."""
    writes: bool = False
    """Whether it may write, in its own folder."""


def _base(folder: Path) -> BaseModel:
    path = folder / "base.gguf"
    return BaseModel("tiny", "0" * 64, path)


def _cut(path: Path, length: int) -> None:
    """Leave little more than the header, so that most changes meet it."""
    path.write_bytes(path.read_bytes()[:length])


def _adapter(folder: Path) -> None:
    TinyModel.random().write(folder / "base.gguf")
    _cut(folder / "base.gguf", 4400)
    modules = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")
    write_peft(folder / "in", lora(modules=modules), record={"base": "tiny", "seed": 1, "metrics": {"loss": 0.5}})


def _read_adapter(folder: Path) -> object:
    (folder / "copy").mkdir()
    copy_adapter_files(folder / "in", folder / "copy")
    checked = check_adapter(folder / "copy", _base(folder))
    return checked.facts(), checked.digest("0" * 64)


def _gguf(folder: Path) -> None:
    TinyModel.random().write(folder / "model.gguf")
    _cut(folder / "model.gguf", 4400)


def _read_gguf(folder: Path) -> object:
    header = read_header(folder / "model.gguf")
    header.hyperparameter("context_length")
    return read_facts(folder / "model.gguf")


def _read_vocabulary(folder: Path) -> object:
    vocabulary = read_vocabulary(folder / "model.gguf")
    return fill_or_continue_format_of(vocabulary, architecture="qwen2"), instruct_format_of(vocabulary)


def _base_with_adapter(folder: Path) -> object:
    return check_adapter(folder / "in", _base(folder)).facts()


def _rows(folder: Path) -> None:
    rows = [
        {"intent": "add one", "code": "x + 1", "split": "train"},
        {"prefix": "def f(", "middle": "x", "suffix": "):", "kind": "line", "path": "a.py"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "```python\nx\n```"}]},
        {"instruction": "sort", "input": "a list", "output": "sorted(x)"},
        {"prompt": [{"from": "human", "value": "q"}], "completion": [{"from": "gpt", "value": "a"}]},
    ]
    (folder / "rows.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / "rows.json").write_bytes(msgspec.json.encode(rows))
    (folder / "rows.csv").write_text('intent,code,split\n"add, one",x + 1,train\n"a\nb",y,test\n', encoding="utf-8")


def _read_rows(folder: Path) -> object:
    found = [path for path in sorted(folder.iterdir()) if path.suffix != ".left"]
    return [jsonl.load(path, seed=1) for path in found]


def _settings(folder: Path) -> None:
    user = 'model = "base"\nthreads = 2\nlisten = "unix"\nfeedback = "text"\nlog_level = "info"\n# é\nport = 0\n'
    (folder / "config.toml").write_text(user, encoding="utf-8")
    project = 'max_tokens_fill = 64\ntime_budget_fill_ms = 900\n[tune]\nignore = ["docs/", "*.md", "!a.py"]\n'
    (folder / ".peft-daemon.toml").write_text(project, encoding="utf-8")


def _read_settings(folder: Path) -> object:
    rules, prefix = ignore_rules(folder)
    write_setting(folder / "config.toml", "model", "other")
    resolved = resolve(environ={}, user_file=folder / "config.toml", project_file=folder / ".peft-daemon.toml")
    return resolved.settings.digest(), rules.match("docs/a.py"), prefix


def _states(folder: Path) -> None:
    for name in ("one", "two"):
        record = StateRecord("print", (("ab", 0.5),), tuple(range(80)), 4, "0" * 64)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(record))
        (folder / f"{name}.kv").write_bytes(b"KVKV")


def _read_states(folder: Path) -> object:
    folder.chmod(0o700)
    store = SavedStateStore(folder, fingerprint="print", limit_bytes=1000)
    match = store.best(range(90), (("ab", 0.5),))
    return match and store.intact(match)


FEEDBACK = FeedbackRequest(
    offer="1", outcome=Outcome.ACCEPTED, language="python", suggestion="x", shown=1, model="m", path="/a/b.py"
)


def _feedback(folder: Path) -> None:
    (folder / "record").write_bytes(msgspec.json.encode(FEEDBACK))
    store = FeedbackStore(folder / "feedback.db", keeps_text=True)
    store.add(FEEDBACK)
    store.add(msgspec.structs.replace(FEEDBACK, offer="2"))


def _read_feedback_row(folder: Path) -> object:
    with closing(sqlite3.connect(folder / "feedback.db")) as database, database:
        record = (folder / "record").read_bytes()
        database.execute("UPDATE feedback SET record = ?, time = ? WHERE offer = '1'", (record, record[:4]))
        if len(record) % 2:
            database.execute("UPDATE feedback SET record = CAST(? AS TEXT), repository = ?", (record, record[-9:]))
    return _read_feedback(folder)


def _read_feedback(folder: Path) -> object:
    store = FeedbackStore(folder / "feedback.db")
    rows = list(store.rows())
    return summarize(rows), store.counts(), store.clear_text()


def _journal(folder: Path) -> None:
    output = ModelOutput(texts=("a", "b"), shown=1, prompt_tokens=1, reused_tokens=0, answer_tokens=2, latency_ms=1.5)
    result = SampleResult(
        strategy="s", seed=1, item="i", given=output, examples=("e",), memory_bytes=1, session="t", elapsed_s=0.5
    )
    (folder / "answers.jsonl").write_bytes((msgspec.json.encode(result) + b"\n") * 3)
    ran = Verification(item="i", answer="0" * 64, outcome=SandboxOutcome.PASSED, why="", passed=1, of=1)
    (folder / "runs.jsonl").write_bytes((msgspec.json.encode(ran) + b"\n") * 3)
    identity = (
        '{"command":"c","data":"d","part":"test","data_digest":"x","model":"m","model_sha256":"0","engine":"torch",'
        '"formats":"f","decoding":{"a":"b"},"max_tokens":1,"context_tokens":2,"strategies":{"s":{"seeds":[1],"settings":{}}}}'
    )
    (folder / "run.json").write_text(identity, encoding="utf-8")


def _read_journal(folder: Path) -> object:
    read_identity(folder)
    answers = [each.key for each in Journal(folder / "answers.jsonl", SampleResult).read()]
    with Journal(folder / "answers.jsonl", SampleResult):
        pass
    return answers, [each.key for each in Journal(folder / "runs.jsonl", Verification).read()]


def _home(folder: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(folder)})


def _learning(folder: Path) -> None:
    paths = _home(folder)
    pending = PendingRun(head="a" * 40, budget_s=60.0, began=1.0)
    serving = LearnedVersion(digest="b" * 64, since=1.0)
    state = RepositoryState(
        root="/r", choice=LearningChoice.ON, pending=pending, serving=serving, outcomes={"": "1010", "b" * 64: "11"}
    )
    store = LearningStore(paths)
    store.change("/r", lambda _: state)
    store.add_minutes(3.0)
    (path,) = (paths.data / "learning").glob("repository-*.json")
    path.rename(path.with_name("repository-0.json"))
    LearningLog(paths).add("/r", LearningEvent.STARTED, "text", {"minutes": 1.0})


def _read_learning(folder: Path) -> object:
    paths = _home(folder)
    store = LearningStore(paths)
    states = [state.with_outcome("b" * 64, accepted=True) for state in store.all()]
    store.add_minutes(1.0)
    log = LearningLog(paths)
    return states, store.minutes_today(), log.entries()


def _registry(folder: Path) -> None:
    names = '{"names":{"mine":[{"digest":"%s","since":"2026"}]},"removed":["cd"]}' % ("ab" * 32)
    active = '{"everywhere":{"fill":"mine"},"repositories":[{"path":"/p","real":"/p","tasks":{"intent":"base"}}]}'
    (folder / "names.json").write_text(names, encoding="utf-8")
    (folder / "active.json").write_text(active, encoding="utf-8")
    (folder / "blobs" / ("ab" * 32)).mkdir(parents=True)
    (folder / "blobs" / ("ab" * 32) / "manifest.json").write_bytes(msgspec.json.encode(manifest()))


def _read_registry(folder: Path) -> object:
    files = RegistryFiles(folder)
    state = files.state()
    state.names.pointing_at("x"), state.names.mentioned(), list(state.active.uses())
    state.active.set_at_import("mine", Task.FILL, state.names)
    return [blob for digest in ("ab" * 32,) if (blob := BlobStore(folder).manifest(digest))]


def _runtime(folder: Path) -> None:
    paths = _home(folder)
    info = DaemonInfo(
        pid=1, created=1.5, address="unix:/x", version="1", protocol=1, config_digest="x", started=1.0, folder="/x"
    )
    private_folder(paths.runtime)
    publish_info(paths, info)
    write_private(paths.runtime / "tuning.json", msgspec.json.encode(TuningNotice("a", ProcessIdentity(1, 1.5), 1.0)))
    private_folder(paths.state)
    record_failed_start(paths, FailedStart(1.0, "a line"))


def _read_runtime(folder: Path) -> object:
    paths = _home(folder)
    return read_info(paths), find_running_tuning(paths), read_failed_starts(paths, 2.0), take_exit_error(paths)


def _tuned(folder: Path) -> None:
    (folder / "data" / "learned").mkdir(parents=True)
    (folder / "data" / "learned" / "x.json").write_text('["0011223344556677", "8899aabbccddeeff"]', encoding="utf-8")
    (folder / "models.json").write_text('{"models":[]}', encoding="utf-8")
    (folder / "trainer_state.json").write_text(
        '{"global_step":3,"best_metric":0.5,"log_history":[{"step":1,"loss":0.5},{"step":2,"eval_loss":0.4}]}',
        encoding="utf-8",
    )
    (folder / "run.json").write_text('{"base_sha256":"0"}', encoding="utf-8")


def _read_tuned(folder: Path) -> object:
    return documents_learned(_home(folder), "x"), Catalogue(folder / "models.json").user_entries()


def _read_run(folder: Path) -> object:
    return load_identity(folder)


def _study(folder: Path) -> None:
    text = (
        'name = "small"\nmodels = ["qwen2.5-coder-0.5b-instruct"]\nmethods = ["lora"]\nstrategies = ["icl-3"]\n'
        'seeds = [42]\n[[datasets]]\nname = "conala"\ntrain = 300\ntest = 100\n[tuning]\nepochs = 2\n'
    )
    (folder / "study.toml").write_text(text, encoding="utf-8")


def _read_study(folder: Path) -> object:
    return read_study(folder / "study.toml").cells()


def _report(folder: Path) -> None:
    (folder / "report.json").write_text('{"schema":1,"title":"x","strategies":[{"name":"a"}]}', encoding="utf-8")


def _read_report(folder: Path) -> object:
    EVALUATION.is_at(folder / "report.json")
    return EVALUATION.read(folder)


LOG = "data/learning/log.jsonl"
TARGETS = (
    Target(
        "adapter",
        _adapter,
        _read_adapter,
        {
            "in/adapter_config.json": mutation.changed_json,
            "in/adapter_model.safetensors": mutation.changed_safetensors,
            "in/peft-daemon.json": mutation.changed_json,
        },
        writes=True,
    ),
    Target("base of an adapter", _adapter, _base_with_adapter, {"base.gguf": mutation.changed_bytes}),
    Target("GGUF header", _gguf, _read_gguf, {"model.gguf": mutation.changed_bytes}),
    Target("GGUF vocabulary", _gguf, _read_vocabulary, {"model.gguf": mutation.changed_bytes}),
    Target(
        "data rows",
        _rows,
        _read_rows,
        {
            "rows.jsonl": mutation.changed_lines,
            "rows.json": mutation.changed_json,
            "rows.csv": mutation.changed_bytes,
        },
    ),
    Target(
        "settings",
        _settings,
        _read_settings,
        {"config.toml": mutation.changed_toml, ".peft-daemon.toml": mutation.changed_toml},
        writes=True,
    ),
    Target(
        "saved states",
        _states,
        _read_states,
        {"one.json": mutation.changed_json, "two.json": mutation.changed_json, "one.kv": mutation.changed_bytes},
        writes=True,
    ),
    Target("feedback rows", _feedback, _read_feedback_row, {"record": mutation.changed_json}, writes=True),
    Target("feedback file", _feedback, _read_feedback, {"feedback.db": mutation.changed_bytes}, writes=True),
    Target(
        "journals",
        _journal,
        _read_journal,
        {
            "answers.jsonl": mutation.changed_lines,
            "runs.jsonl": mutation.changed_lines,
            "run.json": mutation.changed_json,
        },
        writes=True,
    ),
    Target(
        "learning state",
        _learning,
        _read_learning,
        {
            "data/learning/repository-0.json": mutation.changed_json,
            "data/learning/minutes.json": mutation.changed_json,
            LOG: mutation.changed_lines,
        },
        writes=True,
    ),
    Target(
        "registry",
        _registry,
        _read_registry,
        {
            "names.json": mutation.changed_json,
            "active.json": mutation.changed_json,
            f"blobs/{'ab' * 32}/manifest.json": mutation.changed_json,
        },
    ),
    Target(
        "runtime files",
        _runtime,
        _read_runtime,
        {
            "run/daemon.json": mutation.changed_json,
            "run/tuning.json": mutation.changed_json,
            "state/failed-starts.json": mutation.changed_json,
        },
        writes=True,
    ),
    Target(
        "what was learned",
        _tuned,
        _read_tuned,
        {"data/learned/x.json": mutation.changed_json, "models.json": mutation.changed_json},
    ),
    Target("tuning run", _tuned, _read_run, {"run.json": mutation.changed_json}),
    Target("study", _study, _read_study, {"study.toml": mutation.changed_toml}),
    Target("report", _report, _read_report, {"report.json": mutation.changed_json}),
)
