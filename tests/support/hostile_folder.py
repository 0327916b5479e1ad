"""A repository that runs code of its own wherever something is looked up in it; whatever runs leaves a mark."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.own_repository import module

OURS = ("peft_daemon", "peft_lsp", "peft_tuning", "peft_evaluation")
MODULES = (
    *("sitecustomize", "usercustomize", "json", "asyncio", "multiprocessing", "logging", "ssl", "pip", "venv"),
    *(
        "httpx",
        "msgspec",
        "numpy",
        "torch",
        "transformers",
        "xllamacpp",
        "tree_sitter",
        "psutil",
        "keyring",
        "conftest",
    ),
)
PROGRAMS = ("git", "pip", "python", "python3", "node", "bwrap", "peft-daemon", "nvidia-smi", "uname", "xdg-open")
PROGRAMS += ("cc", "c++", "g++", "cmake", "ninja", "ccache", "nvcc", "glslc", "llama-server")
HOOKS = ("post-checkout", "post-index-change", "pre-commit", "reference-transaction", "fsmonitor-watchman")
_SHELL = ("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "core.gitProxy")
_SHELL += ("diff.external", "diff.own.textconv", "diff.own.command", "filter.own.clean", "filter.own.process")
_SHELL += ("gpg.program", "credential.helper", "pager.log", "pager.ls-files", "sequence.editor", "trailer.own.command")


@dataclass(frozen=True)
class HostileFolder:
    """The folder, and what ran in it so far."""

    root: Path
    _marks: Path

    @property
    def marks(self) -> dict[str, str]:
        """Names of what ran, and how it was called last."""
        return {file.name: file.read_text().strip() for file in self._marks.iterdir()}

    def forget(self) -> None:
        """Delete the marks."""
        for file in self._marks.iterdir():
            file.unlink()

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment whose PATH begins with folders that depend on where one is."""
        return {**environ, "PATH": os.pathsep.join((".", "", "bin", environ.get("PATH", os.defpath)))}

    def spring(self) -> None:
        """Do what runs most of it: a Python started as ``python -c``, names looked up on such a PATH, plain git."""
        imports = (
            "import importlib, sys\nfor name in sys.argv[1:]:\n"
            "    sys.modules.pop(name, None)\n"
            "    try: importlib.import_module(name)\n"
            "    except ImportError: pass\n"
        )
        # Whoever runs these tests may have told Python to take care.
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        self._run(sys.executable, "-c", imports, *OURS, *MODULES, environ=plain)
        looked_up = "; ".join(PROGRAMS)
        self._run("/bin/sh", "-c", looked_up, environ=self.environ(plain))
        self._run("git", "status", environ=plain)
        self._run("git", "diff", environ=plain)
        self._run(str(self.root / ".venv" / "bin" / "python"), environ=plain)

    def _run(self, *command: str, environ: Mapping[str, str]) -> None:
        subprocess.run(command, cwd=self.root, env=environ, check=False, capture_output=True)


def hostile_folder(root: Path, marks: Path) -> HostileFolder:
    """Make it, as a git repository with enough code to learn from."""
    marks.mkdir(parents=True)
    _commit(root)
    for name in (*OURS, *MODULES):
        inside = name in OURS or name in ("pip", "multiprocessing", "asyncio")
        _python(root / name / "__init__.py" if inside else root / f"{name}.py", marks / name)
    _python(root / "peft_daemon" / "__main__.py", marks / "peft_daemon.__main__")
    for name in PROGRAMS:
        for folder in (root, root / "bin"):
            if (folder / name).is_dir():  # the package of that name
                continue
            _program(folder / name, marks / f"program {name}")
    for name in HOOKS:
        _program(root / ".git" / "hooks" / name, marks / f"hook {name}")
    _program(root / ".venv" / "bin" / "python", marks / "interpreter")
    settings = {key: str(_program(root / ".git" / f"run-{key}", marks / key)) for key in _SHELL}
    settings |= {"log.showSignature": "true", "core.hooksPath": str(root / ".git" / "hooks")}
    for key, value in settings.items():
        _git(root, "config", key, value)
    (root / ".gitattributes").write_text("*.py diff=own filter=own\n")
    (root / "matplotlibrc").write_text("text.usetex: True\n")
    return HostileFolder(root, marks)


def _commit(root: Path) -> None:
    (root / "shop").mkdir(parents=True)
    for number in range(16):
        (root / "shop" / f"part{number}.py").write_text(module(number))
    _git(root, "init", "--quiet")
    _git(root, "add", "--all")
    _git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=x")
    (root / "shop" / "part0.py").write_text(module(0) + "\nCHANGED = True\n")


def _git(root: Path, *arguments: str) -> None:
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *arguments], cwd=root, env={**os.environ, **nothing}, check=True, capture_output=True)


def _python(file: Path, mark: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"import sys\nprint(*sys.orig_argv, file=open({str(mark)!r}, 'w'))\nraise ImportError\n")


def _program(file: Path, mark: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho \"$0 $*\" > '{mark}'\nexit 1\n")
    file.chmod(0o755)
    return file
