"""One file of a data set repository on the hub, at a pinned commit, into the cache: resumed, checked, all or nothing.

Speaks the hub's plain ``/datasets/{repository}/resolve/{commit}/{file}`` route, which mirrors serve too; no hub client,
no credentials, and no code from the repository. The commit pins the content as far as the hub is trusted; where the
file's sha256 is known, that is checked as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peft_core.files import is_full, sync_folder
from peft_core.http_download import DownloadProgress, PartialFile, TransferFailed, download


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a repository, and what is known of its content."""

    file: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A data set repository at a commit, never at a branch."""

    id: str
    commit: str

    @property
    def pin(self) -> str:
        """For provenance: ``hub codeparrot/apps@21e74ddf8de1``."""
        return f"hub {self.id}@{self.commit[:12]}"


def fetch(
    repository: HubRepository, wanted: HubFile, target: Path, *, endpoint: str, progress: DownloadProgress
) -> None:
    """Put the file at ``target`` (its folder exists), unless it is there.

    Another process that fetches the same file is waited for. An interruption leaves a part that the next call goes on
    with, never a half file at ``target``. Raises TransferFailed.
    """
    from filelock import FileLock  # noqa: PLC0415  (only a download needs a lock)

    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file():
            return
        part = target.with_name(f".{target.name}.{repository.commit[:12]}.part")
        url = f"{endpoint}/datasets/{repository.id}/resolve/{repository.commit}/{wanted.file}"
        progress.note(f"fetching {url}")
        try:
            with PartialFile(part) as partial:
                download(url, partial, progress)
                _check(wanted, partial)
                partial.sync()
            part.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            reason = "the disk is full" if is_full(error) else error.strerror
            raise TransferFailed(f"cannot write to {target.parent}: {reason}") from None


def _check(wanted: HubFile, partial: PartialFile) -> None:
    size, sha256 = partial.size, partial.sha256()
    if wanted.bytes not in (None, size):
        partial.cut(0)
        raise TransferFailed(f"{wanted.file} has {size} bytes instead of {wanted.bytes}")
    if wanted.sha256 not in (None, sha256):
        partial.cut(0)
        raise TransferFailed(f"{wanted.file} has another sha256 than the pinned one")
