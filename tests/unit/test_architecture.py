"""What import-linter cannot say: the editor path never loads torch, one module starts processes, files stay small.

The directions of imports are contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    f"peft_{folder}": ROOT / folder / f"peft_{folder}"
    for folder in ("core", "daemon", "tuning", "evaluation", "lsp", "cli")
}


def imports(file: Path, package: str) -> Iterator[str]:
    """Absolute names of all modules a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def modules(package: str) -> Iterator[tuple[str, Path]]:
    root = PACKAGES[package]
    for file in sorted(root.rglob("*.py")):
        parts = (package, *file.relative_to(root).with_suffix("").parts)
        yield ".".join(p for p in parts if p != "__init__"), file


def test_imports_point_down() -> None:
    """The contracts of pyproject.toml hold."""
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("module", ["peft_daemon.app", "peft_daemon.client", "peft_lsp.server", "peft_cli.app"])
def test_no_part_of_the_editor_path_imports_torch(module: str) -> None:
    heavy = "{'torch', 'transformers', 'peft', 'datasets', 'accelerate', 'bitsandbytes'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


STARTERS = (
    *("os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.popen", "os.startfile", "os.fork", "pty"),
    *("multiprocessing", "concurrent.futures.Process", "subprocess.", "asyncio.create_subprocess", "webbrowser"),
)
"""Beginnings of the names of what starts a process."""
STARTED_ELSEWHERE = {
    # The user's browser, which the standard library looks for on a PATH that holds no relative folder by then.
    "peft_cli.report": ("webbrowser", "webbrowser.open"),
}
HARMLESS = frozenset(
    {
        "PIPE",
        "DEVNULL",
        "STDOUT",
        "TimeoutExpired",
        "CalledProcessError",
        "SubprocessError",
        "CompletedProcess",
        "Process",
    }
    | {"DETACHED_PROCESS", "CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW"}
)
"""Of ``subprocess`` and ``asyncio.subprocess``; none of it starts anything."""


def starts_of_processes(tree: ast.AST) -> Iterator[str]:
    """Names of what a file uses that starts a process."""
    types = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and id(node) not in types:  # `subprocess.Popen[bytes]` is a type
            names = [ast.unparse(node)]
        for name in names:
            module, _, last = name.removeprefix("asyncio.").rpartition(".")
            if last not in HARMLESS and (module == "subprocess" or name.startswith(STARTERS)):
                yield name


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['git'])",
        "from subprocess import Popen",
        "import asyncio\nasyncio.create_subprocess_exec('git')",
        "import os\nos.execv('git', [])",
        "import multiprocessing",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)
def test_a_start_of_a_process_is_noticed(code: str) -> None:
    assert list(starts_of_processes(ast.parse(code)))


@pytest.mark.parametrize("package", PACKAGES)
def test_processes_are_started_by_one_module_only(package: str) -> None:
    for module, file in modules(package):
        if module != "peft_core.processes":
            started = starts_of_processes(ast.parse(file.read_text(encoding="utf-8")))
            found = [name for name in started if name not in STARTED_ELSEWHERE.get(module, ())]
            assert not found, f"{module} uses {found}: start children with peft_core.processes"


def test_a_projects_own_file_is_read_for_typed_commands_only() -> None:
    readers = {
        module
        for package in PACKAGES
        for module, file in modules(package)
        for name in imports(file, package)
        if name in ("peft_core.settings.find_project_file", "peft_core.settings.PROJECT_FILE")
    }
    assert readers
    assert all(module.startswith(("peft_cli.", "peft_tuning.")) for module in readers), readers


def test_files_stay_small_enough_to_hold_in_the_head() -> None:
    long = {
        str(f.relative_to(ROOT)): n
        for package in PACKAGES
        for _, f in modules(package)
        if (n := len(f.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert not long
