"""The sandboxes: bubblewrap, and no protection.

Bubblewrap starts a process with its own user, process, network, IPC and host name spaces, without capabilities, and
with a seccomp filter. Its root has only the interpreter with its standard library and shared libraries, ``inside``,
``/dev/null`` and an empty ``/tmp`` of limited size; there is no ``/proc``. A workspace adds an empty folder with the
repository's path, the repository's interpreter and packages, sources of random bytes, and time zones.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from peft_core.errors import InvalidInput, NotFound
from peft_core.processes import find_program, run
from peft_evaluation.sandbox import seccomp
from peft_evaluation.sandbox.base import (
    INSIDE,
    PACKAGE,
    Launch,
    Sandbox,
    SandboxLimits,
    SandboxWorkspace,
    entry_command,
)

ROOT = "/code"
MOUNTED = f"{ROOT}/{PACKAGE.replace('.', '/')}"
TEMPORARY = "/tmp"  # noqa: S108  (the sandbox's own)
HELP = "Install it (Debian, Ubuntu: `apt install bubblewrap`), or give `--allow-unsandboxed` to run without protection"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


class Bubblewrap:
    """The sandbox of bubblewrap; implements ``Sandbox``."""

    name = "bubblewrap"

    def __init__(self) -> None:
        """Raises NotFound if bubblewrap is not installed or may not create name spaces."""
        found = find_program("bwrap")
        if found is None:
            raise NotFound("generated code is run only in a sandbox, and bubblewrap is not installed", fix=HELP)
        self._program = found
        self._filter = seccomp.program()
        self._own = _own_libraries()
        self._check()

    def launch(self, entry: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        """See ``Sandbox``."""
        mounts = [*map(_read_only, self._own), _writable(TEMPORARY, limits.file_bytes)]
        python = os.path.realpath(sys.executable)
        return _launch(
            self._program,
            self._filter,
            (*_placed(mounts), *_devices("/dev/null")),
            TEMPORARY,
            (python, *entry_command(entry, ROOT), *arguments),
        )

    def workspace(self, workspace: SandboxWorkspace) -> Sandbox:
        """See ``Sandbox``."""
        return BubblewrapWorkspace(self._program, workspace)

    def _check(self) -> None:
        """Run an entry point that does nothing; raises NotFound, with bubblewrap's message, if that fails."""
        launch = self.launch("confine.end_at_once", (), SandboxLimits())
        try:
            done = run(
                launch.command, environ={}, pass_fds=launch.descriptors, capture_output=True, text=True, timeout=30
            )
        finally:
            for descriptor in launch.descriptors:
                os.close(descriptor)
        if done.returncode != 0:
            raise NotFound(
                "generated code is run only in a sandbox, and bubblewrap cannot create one here",
                why=" ".join(done.stderr.split())[-300:] or f"exit status {done.returncode}",
                fix="Allow unprivileged user name spaces (`sysctl kernel.unprivileged_userns_clone=1`; on Ubuntu also "
                "`kernel.apparmor_restrict_unprivileged_userns=0`), or give `--allow-unsandboxed`",
            )


class BubblewrapWorkspace:
    """Bubblewrap with a workspace, which permits more; see ``base.SandboxWorkspace``."""

    name = Bubblewrap.name

    def __init__(self, program: str, workspace: SandboxWorkspace) -> None:
        self._program, self._workspace = program, workspace
        self._filter = seccomp.program(socket_pairs=True)
        libraries = ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", workspace.python, *workspace.mounts)
        self._mounts = [_read_only(Path(each)) for each in dict.fromkeys(libraries) if Path(each).exists()]

    def launch(self, entry: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        """See ``Sandbox``."""
        folder = self._workspace.folder
        written = [_writable(TEMPORARY, limits.file_bytes), _writable(folder, self._workspace.room_bytes)]
        return _launch(
            self._program,
            self._filter,
            (*_placed([*written, *self._mounts]), *_devices(*DEVICES)),
            folder,
            (self._workspace.python, *entry_command(entry, ROOT), *arguments),
        )

    def workspace(self, workspace: SandboxWorkspace) -> Sandbox:
        """See ``Sandbox``."""
        return BubblewrapWorkspace(self._program, workspace)


def _launch(program: str, rules: bytes, mounts: Sequence[str], folder: str, command: Sequence[str]) -> Launch:
    """Return the launch of ``command`` in ``folder``, with only ``mounts`` and ``inside`` visible."""
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, rules)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return Launch(
        (
            program,
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
            *mounts,
            *("--ro-bind", str(INSIDE), MOUNTED, "--remount-ro", "/", "--chdir", folder),
            *("--seccomp", str(descriptor), "--"),
            *command,
        ),
        (descriptor,),
    )


_Mount = tuple[Path, tuple[str, ...]]
"""Path inside, and bubblewrap's options."""


def _read_only(path: Path) -> _Mount:
    return path, ("--ro-bind", str(path), str(path))


def _writable(path: str, most_bytes: int) -> _Mount:
    return Path(path), ("--size", str(most_bytes), "--tmpfs", path)


def _placed(mounts: Iterable[_Mount]) -> list[str]:
    """Return the options of all mounts, parent folders first, after ``/lib`` and the like (links on most systems)."""
    arguments: list[str] = []
    for name in ("/lib", "/lib64", "/lib32"):
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    for _path, options in sorted(mounts, key=lambda each: len(each[0].parts)):
        arguments += options
    return arguments


def _devices(*names: str) -> list[str]:
    return [word for name in names for word in ("--dev-bind", name, name)]


def _own_libraries() -> list[Path]:
    """Return the paths of this interpreter and the libraries it loads."""
    libraries = {Path("/usr/lib"), Path("/usr/lib64"), Path(sysconfig.get_path("stdlib")).resolve()}
    shared = sysconfig.get_config_var("LIBDIR")
    if shared and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        libraries.add(Path(shared).resolve())
    return [*filter(Path.is_dir, libraries), Path(sys.executable).resolve()]


class Unconfined:
    """No sandbox: only limits on time, memory and files. Code can reach everything that the user can."""

    name = "none"

    def launch(self, entry: str, arguments: Sequence[str], limits: SandboxLimits) -> Launch:
        """See ``Sandbox``."""
        return Launch((sys.executable, *entry_command(entry, str(INSIDE.parents[PACKAGE.count(".")])), *arguments))

    def workspace(self, workspace: SandboxWorkspace) -> Sandbox:
        """Raise InvalidInput: without a sandbox a repository's tests would write into the repository itself."""
        raise InvalidInput(
            "your tests are run only in a sandbox",
            why=f"without one they would run in {workspace.folder} itself",
            fix="Leave --allow-unsandboxed out",
        )


def choose_sandbox(*, allow_unsandboxed: bool) -> Sandbox:
    """Return bubblewrap, or no protection with ``allow_unsandboxed``.

    Raises NotFound if bubblewrap does not work.
    """
    if sys.platform != "linux":
        raise NotFound(
            f"generated code cannot be run on {sys.platform}",
            why="the sandbox needs Linux",
            fix="Evaluate on Linux, in a container or a virtual machine",
        )
    return Unconfined() if allow_unsandboxed else Bubblewrap()
