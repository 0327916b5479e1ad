"""What goes into the copy of a repository, and what comes out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.errors import TooLarge
from peft_evaluation.repo_tests import preparation
from peft_evaluation.repo_tests.preparation import pack
from peft_evaluation.sandbox.inside.suite import replace_text, unpack
from support.own_repository import OwnRepository


@pytest.fixture
def repository(tmp_path: Path) -> OwnRepository:
    return OwnRepository(tmp_path / "repository")


def unpacked(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    folder.mkdir()
    monkeypatch.chdir(folder)
    unpack(os.open(file, os.O_RDONLY))
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_tracked_files_come_out_as_they_are_in_the_work_tree(
    repository: OwnRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, str | bytes] = {
        "a.py": "x = 1\n",
        "deep/er/b.bin": bytes(range(256)) * 40,
        "empty": "",
        "ü n\ni.txt": "é",
        "gone.py": "",
    }
    repository.commit(files)
    (repository.root / "link").symlink_to("a.py")
    (repository.root / "out").symlink_to("/etc/passwd")
    repository.write("tool.sh", "#!/bin/sh\n").chmod(0o755)
    repository.git("add", "--all")
    repository.write("a.py", "x = 2\n")
    repository.write("secret.txt", "nobody's business")
    (repository.root / "gone.py").unlink()
    target = tmp_path / "pack"
    made = pack(repository.root, target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert made.bytes >= sum(len(each) for each in files.values())
    out = tmp_path / "out"
    found = unpacked(target, out, monkeypatch)
    assert set(found) - {"out"} == {"a.py", "deep/er/b.bin", "empty", "ü n\ni.txt", "link", "tool.sh"}
    assert found["a.py"] == found["link"] == b"x = 2\n"
    assert found["deep/er/b.bin"] == files["deep/er/b.bin"]
    assert (out / "link").readlink() == Path("a.py") and (out / "out").readlink() == Path("/etc/passwd")
    assert os.access(out / "tool.sh", os.X_OK) and not os.access(out / "empty", os.X_OK)
    replace_text("deep/er/b.bin", "é\n")
    assert (out / "deep/er/b.bin").read_bytes() == "é\n".encode()
    assert pack(repository.root, target) == made
    repository.write("a.py", "x = 3\n")
    assert pack(repository.root, target).digest != made.digest


def test_a_repository_that_is_too_large_is_refused(
    repository: OwnRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "MAX_PACK_BYTES", 2**20)
    repository.commit({"data.bin": bytes(2**20)})
    with pytest.raises(TooLarge, match="more than 1 MB"):
        pack(repository.root, tmp_path / "pack")
