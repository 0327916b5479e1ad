"""How every child process is started: so that the folder the user happens to be in decides nothing.

A folder cannot set environment variables or settings; it takes part where something relative is looked up in it. So
children are Pythons that do not import from the working folder, or programs with an absolute path found on ``PATH``
outside the visited folders; their working folder is ``WORKING_FOLDER`` unless the caller names one of its own; and
what is relative in the environment is taken out of it. No other module starts processes (a test keeps that).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

WORKING_FOLDER = Path(sys.executable).anchor or os.sep
"""The root of the file system: always there, and nothing that only one user can write lies in it."""
_SEARCH_LISTS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""Variables with several folders; an empty entry means the working folder."""
_LOCATIONS = (
    *("PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "BASH_ENV", "HOME", "XDG_CONFIG_HOME"),
    *("GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "PIP_CONFIG_FILE"),
)
"""Variables that say where code or configuration lies."""
_SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
"""Entries of ``PATH`` that are searched wherever the user is."""
_HOOKS = ("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHON_PRESITE", "PYTHONEXECUTABLE", "PYTHONCASEOK")
"""Variables that have a Python run or import something else; meant for the user's own sessions."""


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module with this interpreter.

    ``-P`` and not ``-I``: an installation found through an absolute ``PYTHONPATH``, or in the user's own
    site-packages, has to be found by the child as well.
    """
    return (_interpreter(), "-P", "-m", module, *arguments)


def python_code(code: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a few lines with this interpreter."""
    return (_interpreter(), "-P", "-c", code, *arguments)


def find_program(name: str, *visited: Path) -> str | None:
    """Return the absolute path of a program on ``PATH``; None where there is none.

    Entries that are relative, or that lie in the folder this process was started in or in one of ``visited``, are
    passed over: whoever wrote that folder would choose the program. A folder that holds the user's home is not such.
    """
    names = [name] if sys.platform != "win32" else [f"{name}.exe", f"{name}.com"]
    for folder in trusted_search_path(*visited):
        for each in names:
            if (Path(folder) / each).is_file() and os.access(Path(folder) / each, os.X_OK):
                return str(Path(folder) / each)
    return None


def trusted_search_path(*visited: Path) -> list[str]:
    """Return the entries of ``PATH`` in which ``find_program`` looks: for a child that looks up programs by itself."""
    foreign = [folder for each in (_STARTED_IN, *visited) for folder in (each, _real(each)) if not _holds_home(folder)]
    trusted = []
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        folder = Path(entry)
        within = any(where.is_relative_to(each) for where in (folder, _real(folder)) for each in foreign)
        if folder.is_absolute() and (not within or entry in _SYSTEM_FOLDERS):
            trusted.append(entry)
    return trusted


def isolated_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ``environ`` (by default this process's) without what would make a child look into its working folder."""
    kept = dict(os.environ if environ is None else environ)
    for name in _HOOKS:
        kept.pop(name, None)
    for name in _LOCATIONS:
        if name in kept and not Path(kept[name]).is_absolute():
            del kept[name]
    for name in _SEARCH_LISTS:
        if name in kept:
            folders = [entry for entry in kept[name].split(os.pathsep) if entry and Path(entry).is_absolute()]
            if folders or name == "PATH":
                kept[name] = os.pathsep.join(folders) or os.defpath
            else:
                del kept[name]
    return kept


def distrust_working_folder(environ: MutableMapping[str, str] | None = None) -> None:
    """Keep this process, and what its libraries start, from looking into the folder it was started in.

    Called first by the entry points. Modules that ``PYTHONPATH`` or ``python -m`` take from that folder are not
    found any more, unless this package itself lies there.
    """
    own = os.environ if environ is None else environ
    entries = own.get("PYTHONPATH", "").split(os.pathsep)
    relative = {os.path.abspath(entry) for entry in entries if not Path(entry).is_absolute()}  # noqa: PTH100  (resolves ..)
    kept_anyway = {str(Path(__file__).parents[1]), *filter(os.path.isabs, entries)}
    if "PYTHONPATH" in own:
        sys.path[:] = [entry for entry in sys.path if entry not in relative or entry in kept_anyway]
    # What `python -m` puts first; the folder of a script otherwise.
    if not sys.flags.safe_path and sys.path[:1] in ([""], [str(_STARTED_IN)]) and sys.path[0] not in kept_anyway:
        del sys.path[0]
    kept = isolated_environment(own)
    for name in set(own) - set(kept):
        del own[name]
    own.update(kept, PYTHONSAFEPATH="1")


def start(
    command: Sequence[str],
    *,
    cwd: str | Path = WORKING_FOLDER,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a child; ``options`` are ``subprocess.Popen``'s. Raises OSError."""
    return subprocess.Popen(_checked(command), cwd=cwd, env=isolated_environment(environ), **options)


def run(
    command: Sequence[str],
    *,
    cwd: str | Path = WORKING_FOLDER,
    environ: Mapping[str, str] | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a child to its end; ``options`` are ``subprocess.run``'s, which says what is raised."""
    return subprocess.run(_checked(command), check=check, cwd=cwd, env=isolated_environment(environ), **options)


async def start_async(
    command: Sequence[str],
    *,
    cwd: str | Path = WORKING_FOLDER,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> asyncio.subprocess.Process:
    """Start a child; ``options`` are ``asyncio.create_subprocess_exec``'s. Raises OSError."""
    import asyncio  # noqa: PLC0415  (commands that start nothing do without it)

    return await asyncio.create_subprocess_exec(
        *_checked(command), cwd=cwd, env=isolated_environment(environ), **options
    )


def _checked(command: Sequence[str]) -> Sequence[str]:
    if not Path(command[0]).is_absolute():
        raise ValueError(f"'{command[0]}' is not an absolute path: use find_program")
    return command


def _interpreter() -> str:
    return str(Path(sys.executable).absolute())


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _holds_home(folder: Path) -> bool:
    home = os.path.expanduser("~")  # noqa: PTH111  (as it stands, even where there is no such user)
    return Path(home).is_relative_to(folder)


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # deleted meanwhile
        return Path(WORKING_FOLDER)


_STARTED_IN = _working_folder()
