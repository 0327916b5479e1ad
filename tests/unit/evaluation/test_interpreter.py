"""What is known of the interpreter that a repository's tests run with, and that nothing of the repository tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from contextlib import suppress
from pathlib import Path

import pytest

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.repo_tests import interpreter
from peft_evaluation.repo_tests.interpreter import find


def test_the_interpreter_is_that_of_the_repository_where_it_has_one(tmp_path: Path) -> None:
    assert find(tmp_path, None).prefix == sys.prefix
    venv.create(tmp_path / ".venv", symlinks=True, with_pip=False)
    with pytest.raises(NotFound, match=r"\.venv/bin/python has no pytest"):
        find(tmp_path, None)
    packages = next((tmp_path / ".venv" / "lib").iterdir()) / "site-packages"
    (packages / "pytest-9.9.dist-info").mkdir()
    (packages / "pytest-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest\nVersion: 9.9\n")
    (tmp_path / "src").mkdir()
    (packages / "own.pth").write_text(f"{tmp_path / 'src'}\n{Path.home()}\n{tmp_path.parent}\n")
    found = find(tmp_path, None)
    assert (found.prefix, found.pytest) == (str(tmp_path / ".venv"), "9.9")
    assert Path(found.python) == Path(sys.executable).resolve()
    mounts = found.mounts(tmp_path)
    assert str(packages) in mounts and str(Path(os.__file__).parent) in mounts
    # The copy stands for the repository's own, and nobody's home is shown.
    assert not {str(tmp_path / "src"), str(Path.home()), str(tmp_path.parent)} & set(mounts)
    assert find(tmp_path, Path(sys.executable)).prefix == sys.prefix


@pytest.mark.parametrize("symlinks", [True, False])
@pytest.mark.parametrize("system", [True, False])
def test_an_environment_is_read_as_its_interpreter_describes_itself(
    tmp_path: Path, symlinks: bool, system: bool
) -> None:
    venv.create(tmp_path / "env", symlinks=symlinks, with_pip=False, system_site_packages=system)
    executable = tmp_path / "env" / "bin" / "python"
    packages = next((tmp_path / "env" / "lib").iterdir()) / "site-packages"
    (packages / "pytest-9.9.dist-info").mkdir()
    (packages / "pytest-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest\nVersion: 9.9\n")
    (packages / "own.pth").write_text(f"# where it is made\n\n{tmp_path}\nimport sys\nnot-there\n")
    read, asked = interpreter._read(executable), interpreter._ask(executable)
    assert read is not None
    assert (read.python, read.prefix, read.site, read.pytest) == (asked.python, asked.prefix, asked.site, asked.pytest)
    assert read.version == asked.version
    # What is below another folder is mounted with it.
    mounts = [Path(each) for each in read.mounts(tmp_path / "repository")]
    assert all(
        any(Path(each).is_relative_to(mount) for mount in mounts)
        for each in asked.mounts(tmp_path / "repository")
        if Path(each).exists()
    )


def canary(file: Path, mark: Path, *, shell: bool) -> None:
    """A file that leaves a mark when it is run: by a shell, or by the start of the Python it belongs to."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n: > {mark}\n" if shell else f"import os; open({str(mark)!r}, 'w').close()\n")
    file.chmod(0o755)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("planted", ["python", "sitecustomize.py", "more.pth"])
def test_an_interpreter_in_the_repository_is_never_run_to_be_asked(tmp_path: Path, planted: str, named: bool) -> None:
    repository, mark = tmp_path / "repository", tmp_path / "mark"
    venv.create(repository / ".venv", symlinks=True, with_pip=False)
    executable = repository / ".venv" / "bin" / "python"
    packages = next((repository / ".venv" / "lib").iterdir()) / "site-packages"
    (packages / "pytest-9.9.dist-info").mkdir()
    canary(executable if planted == "python" else packages / planted, mark, shell=planted == "python")
    assert find(repository, executable if named else None).pytest == "9.9"
    (tmp_path / "link").symlink_to(executable)
    with suppress(InvalidInput, NotFound):
        find(repository, tmp_path / "link")
    assert not mark.exists()
    subprocess.run([executable, "-I", "-c", ""], check=False)
    assert mark.exists(), "the trap would have noticed"


def test_a_program_in_the_repository_that_is_no_environment_is_refused_unrun(tmp_path: Path) -> None:
    planted, mark = tmp_path / "repository" / ".venv" / "bin" / "python", tmp_path / "mark"
    canary(planted, mark, shell=True)
    with pytest.raises(InvalidInput, match="is not run to ask it"):
        find(tmp_path / "repository", None)
    assert not mark.exists()
    subprocess.run([planted], check=True)
    assert mark.exists(), "the trap would have noticed"


def test_what_is_no_interpreter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not an interpreter"):
        find(tmp_path / "repository", tmp_path / "python")
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    with pytest.raises(InvalidInput, match="does not run as a Python interpreter"):
        find(tmp_path / "repository", silent)
    old = tmp_path / "old"
    facts = (
        '{"python": "/p", "version": [3, 7, 1], "prefix": "/", "library": [], "site": [], "path": [], "pytest": "7"}'
    )
    old.write_text(f"#!/bin/sh\necho '{facts}'\n")
    old.chmod(0o755)
    with pytest.raises(InvalidInput, match=r"is Python 3\.7\.1"):
        find(tmp_path / "repository", old)
