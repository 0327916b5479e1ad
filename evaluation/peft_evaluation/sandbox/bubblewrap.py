"""Bubblewrap: own user, process, network, IPC and host name spaces, an empty root, no capability, a seccomp filter.

The root holds the interpreter with its standard library and shared libraries, ``inside``, ``/dev/null`` and an empty
``/tmp`` of limited size; there is no ``/proc``. Everything else of the machine does not exist in there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from peft_daemon.errors import NotFound
from peft_evaluation.sandbox import seccomp
from peft_evaluation.sandbox.base import INSIDE, PACKAGE, Launch, Limits, start

ROOT = "/code"
MOUNTED = f"{ROOT}/{PACKAGE.replace('.', '/')}"
HELP = "Install it (Debian, Ubuntu: `apt install bubblewrap`), or give `--allow-unsandboxed` to run without protection"


class Bubblewrap:
    """See ``base.Sandbox``."""

    name = "bubblewrap"

    def __init__(self) -> None:
        """Raises NotFound where bubblewrap is not installed or may not make name spaces."""
        found = shutil.which("bwrap")
        if found is None:
            raise NotFound("generated code is only run in a sandbox, and bubblewrap is not installed", fix=HELP)
        self._program = found
        self._filter = seccomp.program()
        self._root = _root()
        self._prove()

    def launch(self, script: str, arguments: Sequence[str], limits: Limits) -> Launch:
        """See ``base.Sandbox``."""
        rules = os.memfd_create("seccomp")
        os.write(rules, self._filter)
        os.lseek(rules, 0, os.SEEK_SET)
        command = (
            self._program,
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
            *self._root,
            *("--ro-bind", str(INSIDE), MOUNTED, "--dev-bind", "/dev/null", "/dev/null"),
            *("--size", str(limits.file_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
            *("--seccomp", str(rules)),
            *("--", os.path.realpath(sys.executable), *start(script, ROOT)),
            *arguments,
        )
        return Launch(command, (rules,))

    def _prove(self) -> None:
        """Start one and see that it ends well; raises NotFound with what bubblewrap says."""
        launch = self.launch("nothing", (), Limits())
        try:
            done = subprocess.run(
                launch.command, pass_fds=launch.descriptors, capture_output=True, text=True, timeout=30, check=False
            )
        finally:
            for descriptor in launch.descriptors:
                os.close(descriptor)
        if done.returncode != 0:
            raise NotFound(
                "generated code is only run in a sandbox, and bubblewrap cannot make one here",
                why=" ".join(done.stderr.split())[-300:] or f"exit status {done.returncode}",
                fix="Allow unprivileged user name spaces (`sysctl kernel.unprivileged_userns_clone=1`; on Ubuntu also "
                "`kernel.apparmor_restrict_unprivileged_userns=0`), or give `--allow-unsandboxed`",
            )


def _root() -> list[str]:
    """The interpreter and the libraries it loads, read-only, where they are outside."""
    arguments: list[str] = []
    for name in ("/lib", "/lib64", "/lib32"):
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    libraries = {Path("/usr/lib"), Path("/usr/lib64"), Path(sysconfig.get_path("stdlib")).resolve()}
    executable = Path(sys.executable).resolve()
    shared = sysconfig.get_config_var("LIBDIR")
    if shared and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        libraries.add(Path(shared).resolve())
    for path in sorted(libraries, key=lambda each: len(each.parts)):
        if path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    return [*arguments, "--ro-bind", str(executable), str(executable)]
