"""The interpreter that the user's tests run with: which one, and what of the machine it needs.

A virtual environment is read, never run: the one in a repository is as foreign as the rest of it, and starting its
Python runs what lies in there (the program itself, ``sitecustomize``, lines of ``.pth`` files). An interpreter that
is installed outside the repository is asked. Does not install anything, and does not look into ``PYTHONPATH`` or the
user's own site-packages folder.
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

OLDEST = (3, 9)
MOST_LINKS = 40
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
    """What is known of it."""

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
    found = _read(executable.absolute())
    if found is None and _lies_in(executable.absolute(), repository):
        raise InvalidInput(
            f"it cannot be read from its files what {executable} is",
            why="what lies in a repository is not run to be asked",
            fix="Make that folder with `python -m venv`, or name a Python with --python PATH",
        )
    found = found or _ask(executable.absolute())
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


def _read(executable: Path) -> Interpreter | None:
    """What the files of an environment or installation say; None where they are not laid out as usual."""
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
    told = re.match(r"3\.\d+\.(\d+)", settings.get("version") or settings.get("version_info") or "")
    return Interpreter(
        python=str(python),
        version=(int(match[1]), int(match[2]), int(told[1]) if told else 0),
        prefix=str(prefix),
        library=tuple(map(str, (*library, *filter(Path.is_dir, own), library[0].parent))),
        site=tuple(map(str, site)),
        path=tuple(map(str, (*library, *paths))),
        pytest=next((version for each in paths for version in _pytest(each)), ""),
    )


def _ask(executable: Path) -> Interpreter:
    """What an interpreter says of itself. Raises InvalidInput."""
    try:
        done = run([str(executable), "-I", "-c", _PROBE], capture_output=True, timeout=60, check=True, text=True)
        return msgspec.json.decode(done.stdout, type=Interpreter)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{executable} does not say what it is", why=str(error)[:200], fix="Name a Python with --python PATH"
        ) from None


def _lies_in(executable: Path, repository: Path) -> bool:
    """Whether it, or a link on the way to it, is in the repository."""
    places = [executable]
    while places[-1].is_symlink() and len(places) < MOST_LINKS:
        places.append(places[-1].parent / places[-1].readlink())
    folders = (repository, repository.resolve())
    real = [Path(os.path.realpath(place.parent)) for place in places]
    return any(place.is_relative_to(folder) for place in (*places, *real) for folder in folders)


def _settings(file: Path) -> Mapping[str, str]:
    """The lines of a ``pyvenv.cfg``; empty where there is none."""
    lines = (line.partition("=") for line in _text(file).splitlines())
    return {key.strip().lower(): value.strip() for key, equals, value in lines if equals}


def _base(executable: Path, name: str, settings: Mapping[str, str]) -> Path | None:
    """The real path of the program: not of a copy in an environment, but of the one that it was made with."""
    real = Path(os.path.realpath(executable))
    home = settings.get("home", "")
    if not home or not real.is_relative_to(os.path.realpath(executable.parent.parent)):
        return real
    found = [Path(home) / each for each in (name, "python3", "python")]
    return next((Path(os.path.realpath(each)) for each in found if each.is_absolute() and each.is_file()), None)


def _libraries(prefixes: Sequence[Path], name: str) -> list[Path]:
    """Folders of the standard library, of the first prefix that has one."""
    for prefix in prefixes:
        found = [prefix / kind / name for kind in ("lib", "lib64")]
        if any((each / "os.py").is_file() for each in found):
            return [each for each in found if each.is_dir()]
    return []


def _added(site: Path) -> Iterator[Path]:
    """Folders that ``.pth`` files name; their lines of code are not run."""
    for file in sorted(site.glob("*.pth")):
        for line in _text(file).splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                folder = Path(os.path.normpath(site / line.strip()))
                if folder.is_dir():
                    yield folder


def _pytest(folder: Path) -> Iterator[str]:
    """The version of pytest in a folder of packages, by the name of the folder that describes it."""
    yield from (match[1] for each in folder.glob("pytest-*-info") if (match := _PYTEST.fullmatch(each.name)))


def _text(file: Path) -> str:
    """Empty for what is no readable file."""
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""
    except OSError:
        return ""
