"""Find the Python interpreter for the user's tests, and the folders of this machine that it needs.

The files of a virtual environment in the repository are read, but its Python is never started here: the repository is
not trusted, and starting it would run code from there (the program itself, ``sitecustomize``, lines of ``.pth`` files).
An interpreter outside the repository is started to ask it. Nothing is installed; ``PYTHONPATH`` and the user's own
site-packages folder are ignored.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput, NotFound
from peft_core.processes import run

MIN_VERSION = (3, 9)
MAX_LINKS = 40
_LIBRARY = re.compile(r"(?:python|pypy)(3)\.(\d+)t?")
_PYTEST = re.compile(r"pytest-([^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")
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
    """An interpreter, its folders, and its pytest."""

    python: str
    """Its real path."""
    version: tuple[int, int, int]
    prefix: str
    """``sys.prefix`` of its environment."""
    library: tuple[str, ...]
    """Folders of the standard library and of shared libraries."""
    site: tuple[str, ...]
    """Folders of installed packages."""
    path: tuple[str, ...]
    """Its ``sys.path``."""
    pytest: str
    """The version of pytest; empty if it is not installed."""

    def mounts(self, repository: Path) -> tuple[str, ...]:
        """Return all folders it reads, except folders of ``repository`` and folders that contain the user's home."""
        home = Path.home()
        packages = {Path(each) for each in self.site}
        kept = []
        for each in dict.fromkeys(map(Path, (*self.library, *self.site, *self.path))):
            own = each.is_relative_to(repository) and not any(each.is_relative_to(folder) for folder in packages)
            if not own and not home.is_relative_to(each) and not repository.is_relative_to(each):
                kept.append(str(each))
        return tuple(kept)


def find(repository: Path, named: Path | None) -> Interpreter:
    """Return the interpreter ``named``, else that of ``.venv`` in ``repository``, else the one that runs this.

    Raises NotFound if it does not exist or has no pytest, InvalidInput if it is too old or cannot be examined.
    """
    own = repository / ".venv" / "bin" / "python"
    executable = named or (own if own.exists() else Path(sys.executable))
    if not executable.is_file():
        raise NotFound(f"{executable} is not an interpreter", fix="Name one with --python PATH")
    found = _read(executable.absolute())
    if found is None and _lies_in(executable.absolute(), repository):
        raise InvalidInput(
            f"the files of {executable} do not show which Python it is",
            why="a program in the repository is not run to ask it",
            fix="Create that environment with `python -m venv`, or name a Python with --python PATH",
        )
    found = found or _ask(executable.absolute())
    if found.version[:2] < MIN_VERSION:
        version = ".".join(map(str, found.version))
        raise InvalidInput(
            f"{executable} is Python {version}",
            why="the oldest that works is 3.9",
            fix="Name another with --python PATH",
        )
    if not found.pytest:
        raise NotFound(
            f"{executable} has no pytest",
            fix=f"`{executable} -m pip install pytest`, or name another interpreter with --python PATH",
        )
    return found


def _read(executable: Path) -> Interpreter | None:
    """Return the interpreter as the files of its environment or installation describe it; None if that is unclear."""
    prefix = executable.parent.parent
    settings = _settings(prefix / "pyvenv.cfg")
    if not settings and not (prefix / "conda-meta").is_dir():
        return None
    libraries = {
        folder.name: match
        for folder in prefix.glob("lib*/*")
        if (match := _LIBRARY.fullmatch(folder.name)) and (folder / "site-packages").is_dir()
    }
    if len(libraries) != 1:
        return None
    ((name, match),) = libraries.items()
    python = _base(executable, name, settings)
    bases = [Path(settings["home"]).parent] if "home" in settings else []
    library = _libraries([*bases, python.parent.parent], name) if python else []
    if python is None or not library:
        return None
    own = [prefix / kind / name for kind in ("lib", "lib64") if not (prefix / kind).is_symlink()]
    site = [each / "site-packages" for each in own]
    if settings.get("include-system-site-packages", "").lower() == "true":
        site += [each / kind for each in library for kind in ("site-packages", "dist-packages")]
        site += [each.parent / "python3" / "dist-packages" for each in library]
        site += [Path("/usr/local/lib") / name / "dist-packages"] if python.is_relative_to("/usr/bin") else []
    site = [each for each in dict.fromkeys(site) if each.is_dir()]
    paths = [*site, *(found for each in site for found in _added(each))]
    micro = re.match(r"3\.\d+\.(\d+)", settings.get("version") or settings.get("version_info") or "")
    return Interpreter(
        python=str(python),
        version=(int(match[1]), int(match[2]), int(micro[1]) if micro else 0),
        prefix=str(prefix),
        library=tuple(map(str, (*library, *filter(Path.is_dir, own), library[0].parent))),
        site=tuple(map(str, site)),
        path=tuple(map(str, (*library, *paths))),
        pytest=next((version for each in paths for version in _pytest(each)), ""),
    )


def _ask(executable: Path) -> Interpreter:
    """Start an interpreter to examine it; raises InvalidInput if that fails."""
    try:
        done = run([str(executable), "-I", "-c", _PROBE], capture_output=True, timeout=60, check=True, text=True)
        return msgspec.json.decode(done.stdout, type=Interpreter)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{executable} does not run as a Python interpreter",
            why=str(error)[:200],
            fix="Name a Python with --python PATH",
        ) from None


def _lies_in(executable: Path, repository: Path) -> bool:
    """Return whether it, or a symbolic link on the way to it, is in the repository."""
    paths = [executable]
    while paths[-1].is_symlink() and len(paths) < MAX_LINKS:
        paths.append(paths[-1].parent / paths[-1].readlink())
    folders = (repository, repository.resolve())
    real = [Path(os.path.realpath(path.parent)) for path in paths]
    return any(path.is_relative_to(folder) for path in (*paths, *real) for folder in folders)


def _settings(file: Path) -> Mapping[str, str]:
    """Return the settings of a ``pyvenv.cfg``; empty if there is none."""
    lines = (line.partition("=") for line in _text(file).splitlines())
    return {key.strip().lower(): value.strip() for key, equals, value in lines if equals}


def _base(executable: Path, name: str, settings: Mapping[str, str]) -> Path | None:
    """Return the real path of the program; for a copy in an environment that of the original."""
    real = Path(os.path.realpath(executable))
    home = settings.get("home", "")
    if not home or not real.is_relative_to(os.path.realpath(executable.parent.parent)):
        return real
    found = [Path(home) / each for each in (name, "python3", "python")]
    return next((Path(os.path.realpath(each)) for each in found if each.is_absolute() and each.is_file()), None)


def _libraries(prefixes: Sequence[Path], name: str) -> list[Path]:
    """Return the folders of the standard library below the first prefix that has one."""
    for prefix in prefixes:
        found = [prefix / kind / name for kind in ("lib", "lib64")]
        if any((each / "os.py").is_file() for each in found):
            return [each for each in found if each.is_dir()]
    return []


def _added(site: Path) -> Iterator[Path]:
    """Yield the folders that ``.pth`` files name; their lines of code are not run."""
    for file in sorted(site.glob("*.pth")):
        for line in _text(file).splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                folder = Path(os.path.normpath(site / line.strip()))
                if folder.is_dir():
                    yield folder


def _pytest(folder: Path) -> Iterator[str]:
    """Yield the version of pytest in a folder of packages, from the name of its metadata folder."""
    yield from (match[1] for each in folder.glob("pytest-*-info") if (match := _PYTEST.fullmatch(each.name)))


def _text(file: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""
    except OSError:
        return ""
