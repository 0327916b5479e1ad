"""One daemon with the real model for each module of tests, ended for certain when the module is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from support.editor import Editor, editor
from support.installation import installation


@pytest.fixture(scope="module")
def environ(model_file: Path, models_dir: Path) -> Iterator[Mapping[str, str]]:
    """The environment of an installation with the model; its daemon is started by the first editor that comes."""
    with installation(models_dir) as variables:
        yield variables


@pytest.fixture
async def one(environ: Mapping[str, str]) -> AsyncIterator[Editor]:
    """An editor whose model is loaded, and which shows suggestions only as a whole: a shared machine may be slow."""
    async with editor(environ, settings={"maxTokens": 48, "showAfterMs": 0, "feedback": "text"}) as each:
        await each.ready()
        yield each
