"""A client in a process of its own: at each line that it reads it finds or starts the daemon and asks it once."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tiny_home import TinyHome

from peft_core.errors import PeftDaemonError
from peft_daemon.client import CompleteRequest


async def ask(tiny: TinyHome, text: str) -> str:
    try:
        async with await tiny.connect() as client:
            answer = await client.complete(CompleteRequest(prefix=text))
            return f"{client.info.pid} {answer.text}"
    except PeftDaemonError as error:
        return f"0 {error.line!r}"


if __name__ == "__main__":
    home = TinyHome(Path(sys.argv[1]))
    print("here", flush=True)
    for line in sys.stdin:
        print(asyncio.run(ask(home, line.strip())), flush=True)
