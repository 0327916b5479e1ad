"""A download follows its server to another one, but never from TLS to an address where anybody could answer."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from peft_core.http_download import TransferFailed, get_json


@contextmanager
def server(location: str = "", tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """Answer with JSON, or send on to ``location``; yields the address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0" if location else "4")
            self.end_headers()
            if not location:
                self.wfile.write(b"[42]")

        def log_message(self, *arguments: object) -> None:
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        serving.socket = tls.wrap_socket(serving.socket, server_side=True)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{serving.server_port}/x", asked
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server of this machine that is trusted in this test."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-days", "1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem")]
    subprocess.run([*command, "-out", str(tmp_path / "cert.pem")], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def test_a_redirect_from_tls_to_none_is_refused_and_the_other_server_not_asked(tls: ssl.SSLContext) -> None:
    with server() as (elsewhere, got), server(elsewhere, tls) as (address, asked):
        with pytest.raises(TransferFailed, match="without TLS"):
            get_json(address)
        assert asked == ["/x"]
        assert got == []


def test_other_redirects_are_followed(tls: ssl.SSLContext) -> None:
    with server(tls=tls) as (safe, _):
        for through in (tls, None):
            with server(safe, through) as (address, _):
                assert get_json(address) == [42]
    with server() as (plain, _), server(plain) as (address, _):
        assert get_json(address) == [42]
