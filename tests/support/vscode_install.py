"""The VS Code server that the tests type into: installed once into a cache folder, by the versions of a lock file.

code-server's package holds a complete build of VS Code's server. Its own wrapper and its native terminal are not used,
so nothing is compiled and no install script is run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import filelock

from support.made_once import cache_folder

PACKAGE = Path(__file__).parents[1] / "e2e/vscode/server"
FILES = ("package.json", "package-lock.json", ".npmrc")
TIMEOUT_S = 900


def tool(name: str, package: str) -> str:
    """Path of a program; fails with what to install."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"there is no {name}: install it (Debian: apt install {package})")
    return path


def installed() -> Path:
    """Folder of the server, installed if it is not there yet; several test runs may ask at once."""
    digest = hashlib.sha256(b"".join((PACKAGE / name).read_bytes() for name in FILES)).hexdigest()[:12]
    root = cache_folder()
    folder = root / f"vscode-{digest}"
    server = folder / "node_modules/code-server/lib/vscode"
    with filelock.FileLock(root / "vscode.lock", timeout=TIMEOUT_S):
        if not folder.exists():
            part = root / f"vscode-{digest}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for name in FILES:
                shutil.copy(PACKAGE / name, part)
            _npm(part, "ci")
            # Its packages come by a lock file of its own, which `npm ci` refuses.
            _npm(part / server.relative_to(folder), "install", "--omit=dev")
            part.rename(folder)
    return server


def _npm(folder: Path, *arguments: str) -> None:
    command = [tool("npm", "npm"), *arguments, "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"npm {' '.join(arguments)} failed in {folder}:\n{done.stdout}\n{done.stderr}")
