"""Where code may be sent: addresses that can be used, and the user's agreement."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.errors import Conflict, Forbidden, InvalidInput
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.engines.upstream import options

URL = "https://gpu.example.com:8000"


def settings(**given: object) -> Settings:
    return Settings(**({"engine": "upstream", "upstream_url": URL} | given))  # type: ignore[arg-type]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})


@pytest.mark.parametrize("given", [URL, f"{URL}/", f"{URL}/v1", f"{URL}/v1/"])
def test_an_address_is_the_same_with_and_without_the_version(given: str) -> None:
    assert options.upstream_url(settings(upstream_url=given)) == URL


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "no server is named"),
        ("gpu.example.com:8000", "no address"),
        ("ftp://gpu.example.com", "no address"),
        ("https://", "no address"),
        ("https://host:99999", "no address"),
        ("https://[::1", "no address"),
        ("https://host/?key=1", "no address"),
        ("https://me:secret@host", "name or a password"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_a_password_in_it_not_repeated(url: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what) as caught:
        options.upstream_url(settings(upstream_url=url))
    assert "secret" not in caught.value.line and caught.value.fix


def test_offline_allows_this_machine_only() -> None:
    with pytest.raises(InvalidInput, match="offline"):
        options.upstream_url(settings(offline=True))
    assert options.upstream_url(settings(offline=True, upstream_url="http://localhost:8080"))


def test_code_is_sent_only_to_the_address_that_was_agreed_to(paths: Paths) -> None:
    with pytest.raises(Forbidden, match="peft-daemon upstream agree"):
        options.require_agreement(paths, URL)
    options.agree(paths, "https://other.example.com")
    with pytest.raises(Forbidden, match=r"the agreement is for https://other\.example\.com"):
        options.require_agreement(paths, URL)
    options.agree(paths, URL)
    options.require_agreement(paths, URL)
    assert options.agreement_file(paths).stat().st_mode & 0o077 == 0
    options.withdraw(paths)
    options.withdraw(paths)
    with pytest.raises(Forbidden):
        options.require_agreement(paths, URL)


def test_a_file_that_is_damaged_or_that_others_may_write_is_no_agreement(paths: Paths) -> None:
    options.agree(paths, URL)
    file = options.agreement_file(paths)
    file.write_bytes(b"{")
    with pytest.raises(Forbidden):
        options.require_agreement(paths, URL)
    file.chmod(0o666)
    with pytest.raises(Conflict, match="others may use it"):
        options.require_agreement(paths, URL)


def test_adapters_are_pairs_of_names() -> None:
    mapped = options.mapped_adapters(settings(upstream_adapters="mine=team-7b-mine, python-fim = org/fim,"))
    assert mapped == {"mine": "team-7b-mine", "python-fim": "org/fim"}
    for bad in ("mine", "=team", "mine=", "a=b,c"):
        with pytest.raises(InvalidInput, match="NAME=MODEL"):
            options.mapped_adapters(settings(upstream_adapters=bad))


def test_it_is_said_where_code_goes() -> None:
    assert options.where_code_goes(Settings()) == "code stays on this machine"
    assert options.where_code_goes(settings()) == f"code goes to {URL}"
    assert options.where_code_goes(settings(upstream_url="http://gpu:1")) == "code goes to http://gpu:1, not encrypted"
    assert options.where_code_goes(settings(upstream_url="http://localhost:1")) == "code goes to http://localhost:1"
