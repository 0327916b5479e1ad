"""The pause between a keystroke and the model (setting ``delayMs``): only the newest request of a document waits on."""

from __future__ import annotations

import asyncio


class Debounce:
    """The requests that wait, at most one for each key."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    async def over(self, key: str, seconds: float) -> bool:
        """Wait; True after ``seconds``, False at once when a newer request with this key comes.

        With 0 seconds nothing waits, but an older request's wait ends all the same.
        """
        if older := self._waiting.pop(key, None):
            older.set()
        if seconds <= 0:
            return True
        newer = self._waiting[key] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await newer.wait()
        except TimeoutError:
            pass
        finally:
            if self._waiting.get(key) is newer:
                del self._waiting[key]
        return not newer.is_set()
