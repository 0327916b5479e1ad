"""Where the daemon listens: nowhere but in its owner's reach."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

import psutil
import pytest
from tiny_home import TinyHome, exit_code

from peft_core.errors import Conflict, InvalidInput
from peft_daemon.client import CompleteRequest
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from peft_daemon.lifecycle.sockets import MAX_SOCKET_PATH_BYTES
from peft_daemon.server import MAX_CONNECTIONS


async def test_promise_19_a_private_unix_socket_is_the_default(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    assert info.socket_path is not None
    assert info.socket_path.parent == tiny.paths.runtime
    assert info.token == ""


async def test_promise_19_a_home_too_deep_for_a_socket_gets_a_short_private_folder(tiny: TinyHome) -> None:
    deep = TinyHome(tiny.root / "/".join(["deep" * 5] * 6))
    deep.root.mkdir(parents=True)
    deep.spawns.symlink_to(tiny.spawns)
    async with await deep.connect() as client:
        path = client.info.socket_path
        assert path is not None
        assert len(bytes(path)) <= MAX_SOCKET_PATH_BYTES
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"
    path.parent.joinpath("keep").touch()
    await deep.stop()
    assert [left.name for left in path.parent.iterdir()] == ["keep"]
    path.parent.joinpath("keep").unlink()
    path.parent.rmdir()


async def test_promise_20_tcp_listens_on_loopback_with_a_secret_of_its_own(tiny: TinyHome) -> None:
    first = await tiny.ensure(listen="tcp")
    assert first.address.startswith("http://127.0.0.1:")
    assert len(first.token) >= 43, "256 bits"
    await tiny.stop()
    assert (await tiny.ensure(listen="tcp")).token != first.token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
async def test_promise_20_no_other_address_is_accepted(tiny: TinyHome, host: str) -> None:
    assert await exit_code(tiny.spawn(listen="tcp", host=host)) == InvalidInput.exit_code
    assert "only addresses of this machine" in tiny.errors.read_text()
    assert find_running_daemon(tiny.paths) is None


async def test_promise_20_a_taken_port_is_named(tiny: TinyHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert await exit_code(tiny.spawn(listen="tcp", port=port)) == Conflict.exit_code
    assert f"cannot listen on port {port}" in tiny.errors.read_text()


async def test_promise_20_a_client_of_the_daemon_before_gets_the_new_token(tiny: TinyHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    async with await tiny.connect("--check-token", listen="tcp", port=port) as client:
        old = client.info
        await tiny.stop()
        new = await tiny.ensure("--check-token", listen="tcp", port=port)
        assert new.address == old.address
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"
        assert client.info == new


async def test_promise_21_the_environments_proxies_never_see_a_request(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with await tiny.connect(listen="tcp") as client:
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"


async def test_connections_that_say_nothing_neither_fill_the_log_nor_keep_others_out(tiny: TinyHome) -> None:
    daemon = tiny.spawn(listen="tcp")
    info = await tiny.serving()
    address = urlsplit(info.address)
    async with contextlib.AsyncExitStack() as silent:
        for _ in range(2 * MAX_CONNECTIONS):
            _reader, writer = await asyncio.open_connection(address.hostname, address.port)
            silent.callback(writer.close)
        assert psutil.Process(daemon.pid).num_fds() < 2 * MAX_CONNECTIONS
        async with await tiny.connect(listen="tcp") as client:
            assert client.info == info
            assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"
    assert tiny.errors.stat().st_size < 10_000


async def test_ipv6_loopback_works_or_is_refused_clearly(tiny: TinyHome) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(Conflict, match="cannot listen on port 0 of ::1"):
            await tiny.ensure(listen="tcp", host="::1")
        return
    async with await tiny.connect(listen="tcp", host="::1") as client:
        assert client.info.address.startswith("http://[::1]:")
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"
