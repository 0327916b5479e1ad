"""The key of an upstream server: in an environment variable, or in the system's keyring, where ``login`` puts it.

No file of ours has a key: settings are shown and copied. The keyring is that of the desktop (Secret Service, KWallet),
macOS's Keychain or Windows' Credential Manager. The package ``keyring``, which knows them all, is an extra, and is
imported only where somebody has logged in. A record beside the settings says for which address that was.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from peft_core.errors import InvalidInput, NotFound, PeftDaemonError, Unavailable
from peft_core.files import read_private, remove_file, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.engines.upstream.failures import UpstreamAddress

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

T = TypeVar("T")

SERVICE = "peft-daemon upstream"
"""Under which the keyring has the key; the address is the user's name there."""
LOGIN_COMMAND = "peft-daemon upstream login"
KEYRING_LIMIT_S = 30.0
"""Longest wait for a keyring, which may ask the user to unlock it."""
_VARIABLE_FIX = "set `upstream_key_env` to the name of an environment variable that has the key"


class Login(msgspec.Struct, frozen=True):
    """The record that the keyring has the key of one server."""

    url: str
    since: float
    """Seconds since 1970."""


def address_with_key(
    settings: Settings, paths: Paths, url: str, environ: Mapping[str, str] | None = None
) -> UpstreamAddress:
    """Return the address with the key of the variable that the settings name, else of the keyring, else without one.

    Raises InvalidInput for a variable without a key, and what ``key_in_keyring`` raises.
    """
    if variable := settings.upstream_key_env:
        key = _key_of_variable(variable, os.environ if environ is None else environ)
        return UpstreamAddress(url, key, f"Correct the environment variable {variable}, then `peft-daemon stop`")
    login = read_login(paths)
    if login is None or login.url != url:
        return UpstreamAddress(url)
    fix = f"Type `{LOGIN_COMMAND}` for another key, then `peft-daemon stop`"
    return UpstreamAddress(url, key_in_keyring(url), fix)


def _key_of_variable(variable: str, environ: Mapping[str, str]) -> str:
    key = environ.get(variable, "").strip()
    if is_usable(key):
        return key
    raise InvalidInput(
        "the key is no key" if key else f"the environment variable {variable} has no key for the upstream server",
        why="it has odd characters" if key else "the daemon has the environment of the program that started it",
        fix=f"Set {variable} where your editor is started, then `peft-daemon stop`",
    )


def is_usable(key: str) -> bool:
    """Whether this can stand in a header as a key."""
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def read_login(paths: Paths) -> Login | None:
    """Return for which server the keyring has a key; None where nobody has logged in.

    Raises Conflict where others may write the record.
    """
    content = read_private(_record(paths))
    try:
        return None if content is None else msgspec.json.decode(content, type=Login)
    except (ValueError, RecursionError):
        return None


def login(paths: Paths, url: str, key: str) -> Login:
    """Put the key of the server at ``url`` into the keyring, in place of that of an earlier server.

    Raises InvalidInput for what is no key, Unavailable for a keyring that did not take it, and as ``open_keyring``.
    """
    if not is_usable(key):
        raise InvalidInput("that is no key" if key else "no key was given", fix=f"Type `{LOGIN_COMMAND}`, then the key")
    keyring = open_keyring()
    earlier = read_login(paths)
    _ask(keyring, lambda: keyring.set_password(SERVICE, url, key))
    if _ask(keyring, lambda: keyring.get_password(SERVICE, url)) != key:
        raise Unavailable("the keyring did not keep the key", fix=f"Use another one, or {_VARIABLE_FIX}")
    record = Login(url, time.time())
    require_private_folder(paths.config)
    write_private(_record(paths), msgspec.json.encode(record))
    if earlier is not None and earlier.url != url:
        _delete(keyring, earlier.url)
    return record


def logout(paths: Paths) -> Login | None:
    """Delete the key from the keyring; returns whose it was, None where nobody was logged in. Raises as ``login``."""
    earlier = read_login(paths)
    if earlier is not None:
        _delete(open_keyring(), earlier.url)
    remove_file(_record(paths))
    return earlier


def key_in_keyring(url: str) -> str:
    """Return the key that the keyring has; raises NotFound where it has none any more, and as ``open_keyring``."""
    keyring = open_keyring()
    key: str | None = _ask(keyring, lambda: keyring.get_password(SERVICE, url))
    if not key or not is_usable(key):
        raise NotFound(f"the keyring has no key for {url}", fix=f"Type `{LOGIN_COMMAND}` again, or {_VARIABLE_FIX}")
    return key


def open_keyring() -> ModuleType:
    """Return the package ``keyring``; raises NotFound where it is not installed, or finds no keyring to use."""
    if importlib.util.find_spec("keyring") is None:
        raise NotFound(
            "the package keyring is not installed",
            fix=f"Type `pip install 'peft-daemon[keyring]'`, or {_VARIABLE_FIX}",
        )
    import keyring  # noqa: PLC0415  (an extra, and slow: it looks for all keyrings there are)
    from keyring.backends import fail  # noqa: PLC0415

    package: ModuleType = keyring
    if isinstance(_ask(package, package.get_keyring), fail.Keyring):
        raise _no_keyring()
    return package


def _no_keyring() -> NotFound:
    return NotFound(
        "this session has no keyring",
        why="on Linux it belongs to a desktop: GNOME's, KDE's or KeePassXC's",
        fix=f"Instead, {_VARIABLE_FIX}",
    )


def _delete(keyring: ModuleType, url: str) -> None:
    from keyring.errors import PasswordDeleteError  # noqa: PLC0415

    def delete() -> None:
        try:
            keyring.delete_password(SERVICE, url)
        except PasswordDeleteError:
            if keyring.get_password(SERVICE, url) is not None:
                raise

    _ask(keyring, delete)


def _ask(keyring: ModuleType, question: Callable[[], T]) -> T:
    """Return the keyring's answer; every failure of it, and a prompt that nobody answers, is an error of ours.

    Its errors are not quoted: a backend may put what it was given into them.
    """
    answers: list[T] = []
    failures: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:  # backends raise what their libraries raise
            failures.append(error)

    thread = threading.Thread(target=ask, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_LIMIT_S)
    if answers:
        return answers[0]
    if failures and isinstance(failures[0], PeftDaemonError):
        raise failures[0]
    if failures and isinstance(failures[0], keyring.errors.NoKeyringError):
        raise _no_keyring()
    raise Unavailable(
        "the keyring cannot be used" if failures else "the keyring does not answer",
        why=type(failures[0]).__name__ if failures else f"it may wait to be unlocked; {KEYRING_LIMIT_S:.0f} s are over",
        fix=f"Unlock it and try again, or {_VARIABLE_FIX}",
    ) from None


def _record(paths: Paths) -> Path:
    return paths.config / "upstream-login.json"
