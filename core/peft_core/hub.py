"""What a hub says of a repository of models or data: the commit of a revision, its files, and the licence on its card.

One GET of the hub's API (``/api/KIND/OWNER/NAME/revision/REV?blobs=true``), which mirrors answer too; no client
library, no token.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from peft_core.http_download import get_json


class HubLfs(msgspec.Struct):
    """A large file's hash and size."""

    sha256: str
    size: int


class HubSibling(msgspec.Struct):
    """A file of the repository."""

    rfilename: str
    size: int | None = None
    lfs: HubLfs | None = None


class HubCard(msgspec.Struct):
    """What is read of the repository's card."""

    license: str | list[str] | None = None


class HubAnswer(msgspec.Struct):
    """A repository at a revision."""

    sha: str
    siblings: list[HubSibling] = []
    cardData: HubCard | None = None

    @property
    def licences(self) -> list[str]:
        """The licences that the card names."""
        told = self.cardData.license if self.cardData else None
        return told if isinstance(told, list) else [told] if told else []


def ask_hub(kind: Literal["models", "datasets"], repository: str, revision: str, endpoint: str) -> HubAnswer:
    """Ask the hub at ``endpoint`` for a repository; raises TransferFailed, ValidationError for another answer."""
    url = f"{endpoint}/api/{kind}/{repository}/revision/{revision}?blobs=true"
    return msgspec.convert(get_json(url), HubAnswer)
