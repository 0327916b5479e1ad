"""An engine that serves has no network, and a crash of it leaves no memory on the disk."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import psutil
import pytest

from support.api_daemon import api_daemon

pytestmark = [pytest.mark.torch, pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own filters")]


@pytest.mark.parametrize("engine", ["llamacpp", "torch"])
def test_an_engine_has_no_network_and_no_process_dumps_or_shows_a_secret(engine: str) -> None:
    with api_daemon(PEFT_DAEMON_ENGINE=engine) as daemon:
        body = {"prefix": "x = ", "suffix": "\n", "max_tokens": 2, "task": "fill"}
        asked = httpx.post(f"{daemon.address}/v1/complete", headers=daemon.headers, json=body, timeout=120)
        assert asked.status_code == 200, asked.text
        status = httpx.get(f"{daemon.address}/v1/status", headers=daemon.headers).json()
        child = Path(f"/proc/{status['engine']['pid']}/status").read_text()
        assert "Seccomp:\t2" in child
        assert "NoNewPrivs:\t1" in child
        for pid in (status["pid"], status["engine"]["pid"]):
            assert psutil.Process(pid).rlimit(psutil.RLIMIT_CORE)[0] <= 1
            # What other programs of this user, or all of them, can read of a process.
            for file in ("cmdline", "environ", "comm"):
                assert daemon.token.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
        assert daemon.token not in daemon.log
        assert "x = " not in daemon.log
