"""A daemon whose model is played, for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.played_daemon import Played, played_home


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    """A home whose daemon runs."""
    async with played_home() as home:
        yield home
