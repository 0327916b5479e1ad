"""How long an editor waits for the language server: from the spawn to the answers of its first two requests.

    python benchmarks/lsp_startup.py --runs 20 --json

``initialize`` is what some editors wait for before they draw; the first request after it is answered once the whole
server is loaded. No daemon is started: the settings switch completion off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

COMMAND = [sys.executable, "-m", "peft_daemon", "lsp"]


def send(stdin: IO[bytes], message: dict[str, Any]) -> None:
    """Write one message."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    stdin.flush()


def answer(stdout: IO[bytes], identity: int) -> dict[str, Any]:
    """The answer to a request; other messages are skipped."""
    while True:
        length = 0
        while (line := stdout.readline()) != b"\r\n":
            if not line:
                raise RuntimeError("the language server ended")
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(stdout.read(length))
        if message.get("id") == identity and "method" not in message:
            return message


def measure(command: list[str], home: str) -> tuple[float, float]:
    """Milliseconds from the spawn to the answer of ``initialize``, and to that of the first request after it."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PEFT_DAEMON_HOME": home}
    ) as server:
        assert server.stdin
        assert server.stdout
        options = {"enabled": False}
        capabilities: dict[str, object] = {"textDocument": {"inlineCompletion": {}}}
        params: dict[str, object] = {"processId": os.getpid(), "rootUri": None, "capabilities": capabilities}
        send(server.stdin, {"id": 1, "method": "initialize", "params": {**params, "initializationOptions": options}})
        answer(server.stdout, 1)
        initialized = time.perf_counter()
        send(server.stdin, {"method": "initialized", "params": {}})
        place = {"textDocument": {"uri": "untitled:1"}, "position": {"line": 0, "character": 0}}
        asked = {**place, "context": {"triggerKind": 1}}
        send(server.stdin, {"id": 2, "method": "textDocument/inlineCompletion", "params": asked})
        answer(server.stdout, 2)
        served = time.perf_counter()
        send(server.stdin, {"id": 3, "method": "shutdown"})
        answer(server.stdout, 3)
        send(server.stdin, {"method": "exit"})
        if server.wait(10) != 0:
            raise RuntimeError(f"the language server ended with {server.returncode}")
    return 1000 * (initialized - began), 1000 * (served - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="processes to start (one more warms the disk cache)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        measure(COMMAND, home)
        pairs = [measure(COMMAND, home) for _ in range(options.runs)]
    report = {}
    for name, times in zip(("initialize_ms", "first_request_ms"), zip(*pairs, strict=True), strict=True):
        ordered = sorted(times)
        report[name] = {
            "median": round(statistics.median(ordered), 1),
            "p95": round(ordered[round(0.95 * (len(ordered) - 1))], 1),
            "min": round(ordered[0], 1),
            "runs": len(ordered),
        }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, figures in report.items():
            print(f"{name:18} " + "  ".join(f"{key} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
