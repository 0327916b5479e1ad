"""Imports point one way, and the editor path never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "peft_daemon": ROOT / "daemon/peft_daemon",
    "peft_lsp": ROOT / "lsp/peft_lsp",
    "peft_tuning": ROOT / "tuning/peft_tuning",
    "peft_evaluation": ROOT / "evaluation/peft_evaluation",
}
LAYERS = {
    # A module of the package on the left may import only what is listed (besides its own package).
    "peft_lsp": (
        "peft_daemon.client",
        "peft_daemon.protocol",
        "peft_daemon.context.protocol",
        "peft_daemon.privacy",
        "peft_daemon.errors",
    ),
    "peft_tuning": (
        "peft_daemon.models",
        "peft_daemon.adapters",
        "peft_daemon.completion",
        "peft_daemon.engines",
        "peft_daemon.client",
        "peft_daemon.protocol",
        "peft_daemon.sources",
        "peft_daemon.privacy",
        "peft_daemon.lifecycle",
        "peft_daemon.child_processes",
        "peft_daemon.config",
        "peft_daemon.paths",
        "peft_daemon.errors",
    ),
    "peft_evaluation": (
        "peft_tuning",
        "peft_daemon.models",
        "peft_daemon.adapters",
        "peft_daemon.completion",
        "peft_daemon.context",
        "peft_daemon.engines",
        "peft_daemon.protocol",
        "peft_daemon.sources",
        "peft_daemon.child_processes",
        "peft_daemon.privacy",
        "peft_daemon.config",
        "peft_daemon.paths",
        "peft_daemon.errors",
    ),
    "peft_daemon": (),
}
_ABOVE = ("answering", "service", "api")
INSIDE = {
    # Inside the daemon: the folder on the left never imports one on the right.
    "errors": ("paths", "config", "protocol", "engines", "models", "adapters", "completion", *_ABOVE, "cli"),
    "child_processes": ("paths", "config", "protocol", "engines", "models", "adapters", "completion", *_ABOVE, "cli"),
    "protocol": ("config", "engines", "models", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "cancellation": ("config", "engines", "models", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "connections": ("config", "engines", "models", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "privacy": (
        "config",
        "protocol",
        "engines",
        "models",
        "adapters",
        "completion",
        "sources",
        *_ABOVE,
        "lifecycle",
        "cli",
    ),
    "config": ("engines", "models", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "engines": ("models", "optimizing", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "models": ("engines", "optimizing", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "feedback": ("engines", "models", "adapters", "completion", *_ABOVE, "lifecycle", "cli"),
    "adapters": ("completion", *_ABOVE, "lifecycle", "cli"),
    "completion": ("models", "optimizing", "adapters", *_ABOVE, "lifecycle", "cli"),
    "sources": ("engines", "models", "adapters", "context", *_ABOVE, "lifecycle", "cli"),
    "context": ("models", "adapters", *_ABOVE, "lifecycle", "cli"),
    "optimizing": (*_ABOVE, "lifecycle", "cli"),
    "answering": ("optimizing", "models", "adapters", "service", "api", "lifecycle", "cli"),
    "service": ("api", "lifecycle", "cli"),
    "lifecycle": ("models", "adapters", "completion", "engines", "service", "api", "cli"),
    "client": ("models", "adapters", "completion", "engines", "service", "api", "cli"),
    "exchange": ("client", "lifecycle", "models", "adapters", "completion", "engines", "service", "api", "cli"),
    "api": ("cli",),
}
LAZY = {
    "peft_daemon.cli.lsp": ("peft_lsp",),
    "peft_daemon.cli.adapters": ("peft_tuning",),
    "peft_daemon.cli.datasets": ("peft_tuning",),
    "peft_daemon.cli.feedback": ("peft_tuning",),
    "peft_daemon.cli.tune": ("peft_tuning",),
    "peft_daemon.cli.evaluate": ("peft_evaluation", "peft_tuning"),
    "peft_daemon.cli.report": ("peft_evaluation",),
    "peft_daemon.cli.bench": ("peft_evaluation", "peft_tuning"),
}
"""The command line loads other parts inside its functions, when their verb is called."""


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


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    for module, file in modules(package):
        for name in imports(file, package):
            top = name.split(".")[0]
            if top not in PACKAGES or top == package or top in LAZY.get(module, ()):
                continue
            allowed = LAYERS[package]
            parents = {".".join(name.split(".")[:n]) for n in range(1, 5)}
            assert parents & set(allowed) or name in ("peft_daemon", "peft_daemon.__version__"), (
                f"{module} imports {name}"
            )


@pytest.mark.parametrize("folder", INSIDE)
def test_parts_of_the_daemon_import_one_way(folder: str) -> None:
    for module, file in modules("peft_daemon"):
        if module.split(".")[1:2] != [folder]:
            continue
        for name in imports(file, "peft_daemon"):
            parts = name.split(".")
            if parts[0] == "peft_daemon" and len(parts) > 1:
                assert parts[1] not in INSIDE[folder], f"{module} imports {name}"


def test_every_module_of_the_daemon_has_its_place() -> None:
    top = {m.split(".")[1] for m, _ in modules("peft_daemon") if "." in m}
    unordered = {"cli", "paths", "metrics", "server", "background", "__main__"}
    assert top - unordered == set(INSIDE)


@pytest.mark.parametrize(
    "module", ["peft_daemon.api.app", "peft_daemon.client", "peft_lsp.server", "peft_daemon.cli.app"]
)
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
    "peft_daemon.cli.report": ("webbrowser", "webbrowser.open"),
}
HARMLESS = frozenset(
    {"PIPE", "DEVNULL", "TimeoutExpired", "CalledProcessError", "SubprocessError", "CompletedProcess", "Process"}
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
        if module != "peft_daemon.child_processes":
            started = starts_of_processes(ast.parse(file.read_text(encoding="utf-8")))
            found = [name for name in started if name not in STARTED_ELSEWHERE.get(module, ())]
            assert not found, f"{module} uses {found}: start children with peft_daemon.child_processes"


def test_a_projects_own_file_is_read_for_typed_commands_only() -> None:
    readers = {
        module
        for package in PACKAGES
        for module, file in modules(package)
        for name in imports(file, package)
        if name in ("peft_daemon.config.find_project_file", "peft_daemon.config.PROJECT_FILE")
    }
    readers |= {m for m, f in modules("peft_daemon") if "config.find_project_file" in f.read_text(encoding="utf-8")}
    assert readers
    assert all(module.startswith(("peft_daemon.cli.", "peft_tuning.")) for module in readers), readers


def test_files_stay_small_enough_to_hold_in_the_head() -> None:
    long = {
        str(f.relative_to(ROOT)): n
        for package in PACKAGES
        for _, f in modules(package)
        if (n := len(f.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert not long
