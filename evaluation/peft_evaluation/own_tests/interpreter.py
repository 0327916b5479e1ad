"""The interpreter that the user's tests run with: which one, and what of the machine it needs. Only reads.

Does not install anything, and does not look into ``PYTHONPATH`` or the user's own site-packages folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from peft_daemon.errors import InvalidInput, NotFound

OLDEST = (3, 9)
_PROBE = """
import importlib.metadata, json, os, site, sys, sysconfig
try:
    pytest = importlib.metadata.version("pytest")
except importlib.metadata.PackageNotFoundError:
    pytest = ""
print(json.dumps({
    "python": os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable),
    "version": list(sys.version_info[:3]),
    "prefix": sys.prefix,
    "library": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.join(sys.base_prefix, "lib")],
    "site": [each for each in site.getsitepackages() if os.path.isdir(each)],
    "path": [os.path.abspath(each) for each in sys.path if os.path.isdir(each)],
    "pytest": pytest,
}))
"""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """What it says of itself."""

    python: str
    """Its real path."""
    version: tuple[int, int, int]
    prefix: str
    """Of its environment."""
    library: tuple[str, ...]
    site: tuple[str, ...]
    """Folders of installed packages."""
    path: tuple[str, ...]
    """Where it looks for modules."""
    pytest: str
    """The version; empty where there is none."""

    def mounts(self, repository: Path) -> tuple[str, ...]:
        """All folders it reads, but those of ``repository`` itself and such as hold the user's home."""
        home = Path.home()
        packages = {Path(each) for each in self.site}
        kept = []
        for each in dict.fromkeys(map(Path, (*self.library, *self.site, *self.path))):
            own = each.is_relative_to(repository) and not any(each.is_relative_to(folder) for folder in packages)
            if not own and not home.is_relative_to(each) and not repository.is_relative_to(each):
                kept.append(str(each))
        return tuple(kept)


def find(repository: Path, named: Path | None) -> Interpreter:
    """The one ``named``, else that of ``.venv`` in ``repository``, else the one that runs this.

    Raises NotFound for one that is not there or has no pytest, InvalidInput for one that is too old or does not answer.
    """
    own = repository / ".venv" / "bin" / "python"
    executable = named or (own if own.exists() else Path(sys.executable))
    if not executable.is_file():
        raise NotFound(f"{executable} is no interpreter", fix="Name one with --python PATH")
    try:
        done = subprocess.run(
            [str(executable.absolute()), "-I", "-c", _PROBE], capture_output=True, timeout=60, check=True, text=True
        )
        found = msgspec.json.decode(done.stdout, type=Interpreter)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{executable} does not say what it is", why=str(error)[:200], fix="Name a Python with --python PATH"
        ) from None
    if found.version[:2] < OLDEST:
        version = ".".join(map(str, found.version))
        raise InvalidInput(
            f"{executable} is Python {version}",
            why="3.9 is the oldest that works",
            fix="Name another with --python PATH",
        )
    if not found.pytest:
        raise NotFound(
            f"{executable} has no pytest",
            fix=f"`{executable} -m pip install pytest`, or name another interpreter with --python PATH",
        )
    return found
