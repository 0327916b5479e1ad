"""Are the stored files of an adapter still those that were imported?

Asked for each request, which costs a look at the system's facts of the files, and before each load, which reads them:
an adapter is small. What was found is remembered until the facts change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from peft_core.api_types import LLAMACPP
from peft_core.errors import UnusableFile
from peft_core.files import FileStamp, file_sha256
from peft_daemon.adapters.blobs import Blobs
from peft_daemon.adapters.manifest import Manifest

Facts = tuple[FileStamp | None, ...]


class AdapterVerifier:
    """What was found of the adapters in ``blobs``."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._found: dict[tuple[str, str | None], tuple[Facts, str]] = {}

    def require_intact(self, manifest: Manifest, *, engine: str | None = None, anew: bool = False) -> None:
        """Raise UnusableFile unless the files that ``engine`` loads are as imported; None: all files.

        They are read where their facts changed since the last time, or if ``anew``.
        """
        key = manifest.digest, engine
        facts = tuple(_facts(path) for path in self._files(manifest, engine))
        known = self._found.get(key)
        if anew or known is None or known[0] != facts:
            known = self._found[key] = facts, self._damage(manifest, engine)
        if known[1]:
            raise unusable(manifest.name, known[1])

    def _files(self, manifest: Manifest, engine: str | None) -> Iterator[Path]:
        if manifest.gguf_bytes and engine in (LLAMACPP, None):
            yield self._blobs.gguf(manifest.digest)
        if engine != LLAMACPP:
            yield from self._blobs.peft_files(manifest.digest)

    def _damage(self, manifest: Manifest, engine: str | None) -> str:
        """What is wrong with the files; empty if nothing is."""
        folder = self._blobs.folder(manifest.digest)
        try:
            for path in self._files(manifest, engine):
                expected = manifest.files.get(path.relative_to(folder).as_posix())
                if expected and file_sha256(path) != expected:
                    return f"{path} is not what was imported"
            # Manifests of earlier versions have sizes only.
            if engine != LLAMACPP and self._blobs.peft_bytes(manifest.digest) != manifest.peft_bytes:
                return f"the files in {self._blobs.peft(manifest.digest)} are not those that were imported"
            gguf = self._blobs.gguf(manifest.digest)
            if manifest.gguf_bytes and engine in (LLAMACPP, None) and gguf.stat().st_size != manifest.gguf_bytes:
                return f"{gguf} is not what was imported"
        except OSError as error:
            return f"{error.filename or folder}: {error.strerror or error}"
        return ""


def unusable(name: str, why: str) -> UnusableFile:
    """The error for an adapter whose files are damaged or gone."""
    return UnusableFile(
        f"adapter '{name}' is damaged",
        why=why,
        fix=f"Import it again with `peft-daemon adapters import FOLDER --name {name}`, or remove it with "
        f"`peft-daemon adapters remove {name} --force`",
    )


def _facts(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path)
    except OSError:
        return None
