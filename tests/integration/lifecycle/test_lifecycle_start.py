"""Starting: one daemon, found only when it serves, exactly as its starter wanted it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from tiny_home import LIMIT_S, TinyHome, exit_code

from peft_core.errors import Conflict, InvalidInput, Unavailable
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import Settings
from peft_daemon.lifecycle.failed_starts import reset_backoff
from peft_daemon.lifecycle.locks import find_lock_holder
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon, info_file, publish_info, read_info
from peft_daemon.lifecycle.start import ensure_running
from support.waiting import until

FOUR_CLIENTS = """
import asyncio, sys
from pathlib import Path
from tiny_home import TinyHome

async def main():
    tiny = TinyHome(Path(sys.argv[1]))
    for info in await asyncio.gather(*(tiny.ensure() for _ in range(4))):
        print(info.pid)

asyncio.run(main())
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def run_client(script: str, *arguments: str, cwd: Path | None = None, modules: Path | None = None) -> str:
    """Output of a Python script in a process of its own; ``modules`` is searched first."""
    folders = [modules, Path(__file__).parent, Path(__file__).parents[2], os.environ.get("PYTHONPATH")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder)},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def health(info: DaemonInfo) -> dict[str, object]:
    transport = httpx.AsyncHTTPTransport(uds=str(info.socket_path))
    async with httpx.AsyncClient(transport=transport) as http:
        answer: dict[str, object] = (await http.get("http://localhost/health")).json()
        return answer


async def test_promise_01_twenty_clients_in_five_processes_get_one_daemon(tiny: TinyHome) -> None:
    outputs = await asyncio.gather(*(run_client(FOUR_CLIENTS, str(tiny.root)) for _ in range(5)))
    pids = [int(line) for output in outputs for line in output.split()]
    assert len(pids) == 20
    assert set(pids) == {(await tiny.serving()).pid}
    assert tiny.notes("begin") == pids[:1]


async def test_promise_01_a_second_daemon_refuses_and_names_the_first(tiny: TinyHome) -> None:
    first = await tiny.ensure()
    second = tiny.spawn()
    assert await exit_code(second) == Conflict.exit_code
    assert f"its pid is {first.pid}" in tiny.errors.read_text()
    assert find_running_daemon(tiny.paths) == first


async def test_promise_02_no_info_file_before_the_application_serves(tiny: TinyHome) -> None:
    hold = tiny.root / "hold"
    starting = asyncio.create_task(tiny.ensure("--hold", str(hold)))
    await until(lambda: tiny.notes("starting"), "a daemon that begins to start")
    assert read_info(tiny.paths) is None
    assert not starting.done()
    hold.touch()
    info = await starting
    assert (await health(info))["status"] == "ok"


async def test_promise_02_whoever_sees_the_info_file_can_connect(tiny: TinyHome) -> None:
    tiny.spawn()
    await until(lambda: info_file(tiny.paths).exists(), "the info file")
    info = read_info(tiny.paths)
    assert info is not None
    assert (await health(info))["status"] == "ok"


async def test_promise_03_all_files_are_private(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    assert info.socket_path is not None
    assert mode(tiny.paths.runtime) == 0o700
    assert {path.name: mode(path) for path in tiny.paths.runtime.iterdir()} == {
        "daemon.json": 0o600,
        "daemon.lock": 0o600,
        "holder.json": 0o600,
        "starter.lock": 0o600,
        info.socket_path.name: 0o600,
    }
    assert mode(tiny.paths.log_file) == 0o600


async def test_promise_04_starters_take_turns(tiny: TinyHome) -> None:
    results = await asyncio.gather(*(tiny.ensure("--crash") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    words = [line.split()[0] for line in tiny.spawns.read_text().splitlines()]
    assert len(words) >= 4, "several starters tried"
    assert words == ["begin", "end"] * (len(words) // 2), "and never two at once"


async def test_promise_04_a_starter_that_waits_too_long_says_so(tiny: TinyHome) -> None:
    first = asyncio.create_task(tiny.ensure("--hold", str(tiny.root / "never")))
    await until(lambda: find_lock_holder(tiny.paths), "a daemon that holds the lock")
    with pytest.raises(Unavailable, match="another process did not finish"):
        await tiny.ensure(timeout_s=0.1)
    first.cancel()


async def test_promise_04_a_cancelled_starter_leaves_the_start_to_the_next_one(tiny: TinyHome) -> None:
    hold = tiny.root / "hold"
    first = asyncio.create_task(tiny.ensure("--hold", str(hold)))
    await until(lambda: find_lock_holder(tiny.paths), "a daemon that holds the lock")
    first.cancel()
    second = asyncio.create_task(tiny.ensure())
    hold.touch()
    assert [(await second).pid] == tiny.notes("begin")


async def test_promise_05_other_settings_restart_the_daemon(tiny: TinyHome) -> None:
    old = await tiny.ensure()
    new = await tiny.ensure(context_tokens=2048)
    assert old.process.find() is None
    assert new.config_digest == Settings(context_tokens=2048).digest()
    assert new.address != old.address, "a client of the old one cannot reach the new one by accident"
    assert await tiny.ensure(context_tokens=2048) == new


async def test_promise_05_an_older_version_is_replaced(tiny: TinyHome) -> None:
    old = await tiny.ensure_pretending("0.0.1")
    new = await tiny.ensure()
    assert old.process.find() is None
    assert (old.version, new.version == old.version) == ("0.0.1", False)


UPDATED = FOUR_CLIENTS.replace(
    "asyncio.run(main())",
    "from peft_core.errors import Conflict\ntry:\n    asyncio.run(main())\nexcept Conflict as error:\n    print(error)",
)


def installed(tiny: TinyHome, version: str) -> Path:
    """The folder of an installation that was updated to this version after its code was loaded."""
    metadata = tiny.root / "site" / f"peft_daemon-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: peft-daemon\nVersion: {version}\n")
    return metadata.parent


async def test_promise_06_a_client_that_outlived_an_update_is_served_by_the_new_daemon(tiny: TinyHome) -> None:
    new = await tiny.ensure_pretending("9.9.9")
    output = await run_client(UPDATED, str(tiny.root), modules=installed(tiny, "9.9.9"))
    assert output.split() == [str(new.pid)] * 4
    assert find_running_daemon(tiny.paths) == new


async def test_promise_06_with_another_protocol_it_is_told_to_restart_and_leaves_the_daemon_alone(
    tiny: TinyHome,
) -> None:
    new = await tiny.ensure_pretending("9.9.9", "--pretend-protocol", "2")
    output = await run_client(UPDATED, str(tiny.root), modules=installed(tiny, "9.9.9"))
    assert "updated while this client was running" in output
    assert find_running_daemon(tiny.paths) == new


async def test_promise_06_what_was_spawned_is_checked_as_well(tiny: TinyHome) -> None:
    with pytest.raises(Conflict, match="updated while this client was running"):
        await tiny.ensure("--pretend-version", "9.9.9", "--pretend-protocol", "2")


async def test_promise_06_the_daemon_of_a_newer_installation_is_left_alone(tiny: TinyHome) -> None:
    elsewhere = ("--pretend-installation", str(tiny.root / "other"))
    new = await tiny.ensure_pretending("9.9.9", *elsewhere)
    assert await tiny.ensure() == new
    with pytest.raises(Conflict, match=r"newer installation in .*other and runs with other settings"):
        await tiny.ensure(context_tokens=2048)
    await tiny.stop()
    new = await tiny.ensure_pretending("9.9.9", "--pretend-protocol", "2", *elsewhere)
    with pytest.raises(Conflict, match="and speaks another protocol"):
        await tiny.ensure()
    assert find_running_daemon(tiny.paths) == new


async def test_promise_07_the_daemon_runs_with_exactly_the_starters_settings(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DAEMON_CONTEXT_TOKENS", "1024")
    tiny.paths.config.mkdir(parents=True)
    tiny.paths.config_file.write_text("slots = 3\n")
    async with await tiny.connect(threads=7) as client:
        status = await client.status()
    assert status.config_digest == client.info.config_digest == Settings(threads=7).digest()
    assert "PEFT_DAEMON_HANDOVER" not in str(await health(client.info)), "nor does it hand them on"


async def test_promise_08_the_daemon_outlives_its_starter_in_a_session_of_its_own(tiny: TinyHome) -> None:
    await run_client(FOUR_CLIENTS, str(tiny.root))
    info = await tiny.serving()
    assert (await health(info))["status"] == "ok"
    assert os.getsid(info.pid) == info.pid


async def test_promise_08_the_folder_of_the_editor_provides_no_modules(tmp_path: Path) -> None:
    (tmp_path / "peft_daemon.py").write_text("raise SystemExit('imported from the project')\n")
    script = (
        "from peft_daemon.lifecycle.start import DAEMON_COMMAND\n"
        "import subprocess\n"
        "print(subprocess.run(DAEMON_COMMAND, capture_output=True, text=True))"
    )
    # The client itself is started the way editors start it, by the console script.
    output = await run_client(f"import sys; sys.path.remove('')\n{script}", cwd=tmp_path)
    assert "this is started by clients only" in output, "the daemon's own module answered"


async def test_promise_09_after_kill_9_the_next_client_gets_a_new_daemon(tiny: TinyHome) -> None:
    old = await tiny.ensure()
    await tiny.kill(old)
    new = await tiny.ensure()
    assert new.pid != old.pid
    assert old.socket_path is not None
    assert not old.socket_path.exists()
    assert find_running_daemon(tiny.paths) == new


async def test_promise_09_a_daemon_whose_socket_was_deleted_is_replaced(tiny: TinyHome) -> None:
    old = await tiny.ensure()
    assert old.socket_path is not None
    old.socket_path.unlink()
    new = await tiny.ensure()
    assert old.process.find() is None
    assert (await health(new))["status"] == "ok"


async def test_promise_10_a_reused_pid_is_neither_believed_nor_killed(tiny: TinyHome) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    real = ProcessIdentity(bystander.pid, 0.0)
    settings = Settings()
    stale = DaemonInfo(
        pid=bystander.pid,
        created=real.created,
        address="unix:/nowhere.sock",
        version="0.1.0",
        protocol=1,
        config_digest=settings.digest(),
        started=time.time() - 3600,
    )
    publish_info(tiny.paths, stale)
    (tiny.paths.runtime / "holder.json").write_bytes(msgspec.json.encode(real))
    (tiny.paths.runtime / "holder.json").chmod(0o600)
    info = await tiny.ensure()
    assert info.pid != bystander.pid
    assert bystander.poll() is None


async def test_promise_11_a_crash_at_start_shows_the_last_lines_and_what_to_do(tiny: TinyHome) -> None:
    with pytest.raises(Unavailable) as caught:
        await tiny.ensure("--crash")
    assert "exit code 1" in caught.value.what
    assert "first line\n" in caught.value.why
    assert "[31mmodel.gguf is broken[0m" in caught.value.why, "without control characters"
    assert "peft-daemon serve" in caught.value.fix


async def test_promise_11_an_error_the_daemon_expects_reaches_the_client_as_it_is(tiny: TinyHome) -> None:
    for _ in range(4):
        with pytest.raises(InvalidInput, match=r"does not listen on '0\.0\.0\.0'") as caught:
            await tiny.ensure(listen="tcp", host="0.0.0.0")
        assert caught.value.fix == "Set `host` to 127.0.0.1 or ::1"
    assert len(tiny.notes("begin")) == 3, "also without being spawned again"
    with pytest.raises(Unavailable, match="exit code 1"):
        reset_backoff(tiny.paths)
        await tiny.ensure("--crash")


async def test_promise_11_the_lines_of_an_earlier_daemon_are_not_shown(tiny: TinyHome) -> None:
    await tiny.kill(await tiny.ensure())
    with pytest.raises(Unavailable) as caught:
        await tiny.ensure("--crash")
    assert "serving at" in tiny.paths.log_file.read_text()
    assert "serving at" not in caught.value.why


async def test_promise_11_a_start_that_hangs_is_ended(tiny: TinyHome) -> None:
    with pytest.raises(Unavailable, match="did not begin to serve in time"):
        await tiny.ensure("--hold", str(tiny.root / "never"), timeout_s=3)
    await until(lambda: find_lock_holder(tiny.paths) is None, "the end of the lock's holder")


async def test_promise_12_repeated_crashes_are_not_tried_again_at_once(tiny: TinyHome) -> None:
    for _ in range(3):
        with pytest.raises(Unavailable, match="exit code 1"):
            await tiny.ensure("--crash")
    with pytest.raises(Unavailable, match="failed to start 3 times") as caught:
        await tiny.ensure("--crash")
    assert "model.gguf is broken" in caught.value.why
    assert len(tiny.notes("begin")) == 3, "the fourth was not spawned"


async def test_promise_12_an_explicit_start_is_tried_at_once(tiny: TinyHome) -> None:
    for _ in range(3):
        with pytest.raises(Unavailable):
            await tiny.ensure("--crash")
    reset_backoff(tiny.paths)
    assert (await tiny.ensure()).process.find() is not None


async def test_promise_12_a_daemon_that_dies_right_after_its_start_counts(tiny: TinyHome) -> None:
    for _ in range(3):
        await tiny.kill(await tiny.ensure())
    with pytest.raises(Unavailable, match="failed to start 3 times"):
        await tiny.ensure()


async def test_a_command_that_does_not_exist_is_reported(tiny: TinyHome) -> None:
    with pytest.raises(Unavailable, match="cannot be started"):
        await ensure_running(Settings(), tiny.paths, timeout_s=LIMIT_S, command=(str(tiny.root / "nothing"),))


async def test_the_info_file_says_what_the_daemon_is(tiny: TinyHome) -> None:
    await tiny.ensure()
    told = json.loads(info_file(tiny.paths).read_text())
    assert set(told) == {
        *(
            "pid",
            "created",
            "folder",
            "address",
            "token",
            "version",
            "protocol",
            "config_digest",
            "started",
            "installation",
        ),
    }
    assert told["token"] == ""
