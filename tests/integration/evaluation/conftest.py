"""What attacks on a sandbox are aimed at."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """It exists, and listens."""
    folder = tmp_path_factory.mktemp("outside")
    secret = folder / "secret.txt"
    secret.write_text("31337")
    abstract = f"\0pd-escape-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(abstract)
        local.listen()
        yield {
            "SECRET": str(secret),
            "OUTSIDE": str(folder / "written.txt"),
            "PROJECT": str(Path(__file__)),
            "PORT": server.getsockname()[1],
            "ABSTRACT": abstract,
            "PARENT": os.getpid(),
        }
