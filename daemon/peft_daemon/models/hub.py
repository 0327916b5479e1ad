"""What a model hub says of a file: the commit it is pinned at, its size, its sha256 and its licence."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from peft_core.errors import DownloadFailed, InvalidInput
from peft_core.http_download import TransferFailed
from peft_core.hub import HubLfs, ask_hub
from peft_daemon.models.catalogue import HubLocation
from peft_daemon.models.facts import UNKNOWN_LICENCE

_ADDRESS = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?")
MAX_NAMED_FILES = 12


@dataclass(frozen=True)
class PinnedFile:
    """A file of a hub repository, pinned."""

    location: HubLocation
    bytes: int
    sha256: str
    licence: str


def find_hub_file(address: str, endpoint: str) -> PinnedFile:
    """Ask the hub at ``endpoint`` for ``OWNER/REPO[/FILE][@REVISION]`` and pin what it answers.

    Raises InvalidInput for what is no address, and where several files or none could be meant; DownloadFailed where
    the hub does not answer, or has no such repository or file.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise InvalidInput(f"'{address}' is no address on the hub", fix="Write hf:OWNER/REPO[/FILE][@REVISION]")
    repository, revision = match["repository"], match["revision"] or "main"
    try:
        answer = ask_hub("models", repository, revision, endpoint)
    except TransferFailed as failure:
        raise DownloadFailed(
            f"cannot look up {repository} on the hub",
            why=str(failure),
            fix="Check the name. What needs a login there is downloaded with the hub's own tools; add the file then",
        ) from None
    except msgspec.ValidationError as error:
        raise DownloadFailed(
            f"cannot look up {repository} on the hub", why=f"{endpoint} answered something else: {error}"
        ) from None
    stored = {each.rfilename: each.lfs for each in answer.siblings if each.lfs and each.rfilename.endswith(".gguf")}
    file = match["file"] or _only(stored, repository)
    lfs = stored.get(file)
    if lfs is None:
        raise InvalidInput(f"{repository} has no file {file}", why=_named(stored), fix="Name one of its .gguf files")
    licences = answer.licences
    return PinnedFile(
        location=HubLocation(repository=repository, revision=answer.sha, file=file),
        bytes=lfs.size,
        sha256=lfs.sha256,
        licence=licences[0] if len(licences) == 1 else UNKNOWN_LICENCE,
    )


def _only(stored: dict[str, HubLfs], repository: str) -> str:
    if len(stored) == 1:
        return next(iter(stored))
    raise InvalidInput(
        f"which file of {repository}?",
        why=_named(stored),
        fix=f"Write hf:{repository}/FILE with one of them"
        if stored
        else f"If it has safetensors: fetch it with `hf download {repository}`, and add the folder that this prints",
    )


def _named(stored: dict[str, HubLfs]) -> str:
    names = sorted(stored)
    more = f" and {len(names) - MAX_NAMED_FILES} more" if len(names) > MAX_NAMED_FILES else ""
    return f"it has {', '.join(names[:MAX_NAMED_FILES])}{more}" if names else "it has no .gguf file"
