"""The format of a home: what lasts has the fields that are written down, and a newer home is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peft_core.api_types import FeedbackRequest
from peft_core.errors import Conflict
from peft_core.home_format import HOME_FORMAT, HomeFormat, is_newer_home, record_format, require_known_format
from peft_core.paths import Paths
from peft_daemon.adapters.manifest import Manifest, TrainingRecord
from peft_daemon.adapters.registry_state import ActiveAdapters, AdapterNames, RepositoryAdapters
from peft_daemon.engines.builds.builder import BuildRecord
from peft_daemon.engines.upstream.keys import Login
from peft_daemon.engines.upstream.options import Agreement
from peft_daemon.learning.log import LogEntry
from peft_daemon.learning.state import LearnedVersion, Pause, PendingRun, RepositoryState
from peft_daemon.models.catalogue import ModelEntry

FIELDS = Path(__file__).parents[1] / "fixtures" / "homes" / "fields.json"
LASTING = (
    HomeFormat,
    AdapterNames,
    ActiveAdapters,
    RepositoryAdapters,
    Manifest,
    TrainingRecord,
    FeedbackRequest,
    RepositoryState,
    LearnedVersion,
    PendingRun,
    Pause,
    LogEntry,
    ModelEntry,
    Agreement,
    Login,
    BuildRecord,
)
"""What stands in files that cannot be made again."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    paths.data.mkdir()
    return paths


def fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Names and types of the fields, without texts."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(value) for key, value in part.items() if key not in ("title", "description")}
        return [plain(each) for each in part] if isinstance(part, list) else part

    schema: dict[str, Any] = json.loads(json.dumps(plain(msgspec.json.schema(kind))))
    return schema


def test_files_that_last_have_the_fields_that_are_written_down_for_this_format() -> None:
    found = {"HOME_FORMAT": HOME_FORMAT, **{kind.__name__: fields(kind) for kind in LASTING}}
    if os.environ.get("RECORD_SNAPSHOTS"):
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(each, sort_keys=True)}" for name, each in found.items())
        FIELDS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    recorded = json.loads(FIELDS.read_text(encoding="utf-8"))
    changed = [name for name, each in found.items() if recorded.get(name) != each]
    assert not changed, (
        f"{', '.join(changed)}: versions before would misread it, or lose the new part when they write the file. "
        "tests/fixtures/homes/README.md says what to do."
    )


def test_a_newer_format_is_refused_and_never_lowered(paths: Paths) -> None:
    file = paths.data / "format.json"
    written = msgspec.json.encode(HomeFormat(HOME_FORMAT + 1, "9.9"))
    file.write_bytes(written[:-1] + b',"later":[1]}')
    before = file.read_bytes()
    with pytest.raises(Conflict, match=r"written by peft-daemon 9\.9, which is newer") as caught:
        require_known_format(paths)
    assert "PEFT_DAEMON_HOME" in caught.value.fix
    assert is_newer_home(paths)
    record_format(paths)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"format":0,"version":"0.0.1"}', b"\xff" * 9, b'{"format":"2"}']
)
def test_a_home_of_an_earlier_or_unknown_format_is_of_this_one_from_now_on(paths: Paths, content: bytes | None) -> None:
    file = paths.data / "format.json"
    if content is not None:
        file.write_bytes(content)
    require_known_format(paths)
    record_format(paths)
    assert msgspec.json.decode(file.read_bytes(), type=HomeFormat).format == HOME_FORMAT


def test_nothing_is_made_where_there_is_no_home(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path / "home")})
    require_known_format(paths)
    record_format(paths)
    assert not (tmp_path / "home").exists()
