"""Files without completions: those of a kind that holds secrets, and, unless the user wants it, prose.

A file is judged by its name alone, in any case; nothing is opened. The table below is the whole rule. It applies to the
daemon, the language server, the index of a workspace and tuning, and no setting turns it off. Example files such as
``.env.example`` count as secret, as people put real values there; a module such as ``credentials.py`` is code and does
not.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class _FileKind:
    """Patterns, in lower case, for the names of files of one kind; ``a/b`` matches file ``b`` in a folder ``a``."""

    holds: str
    """The secrets in such files, for the user."""
    names: tuple[str, ...] = ()
    data_names: tuple[str, ...] = ()
    """Patterns for names without an ending, or with that of a data file; source files may have such names too."""
    bare_names: tuple[str, ...] = ()
    """Patterns for names without an ending."""


_KINDS = (
    _FileKind("environment variables", (".env", ".env.*", "*.env", ".envrc", ".flaskenv")),
    _FileKind(
        "private keys",
        (
            *("*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.keystore", "*.ppk", "*.agekey"),
            *("*.kdbx", "*.ovpn", ".ssh/*", ".gnupg/*"),
        ),
        data_names=("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
        bare_names=("id_*",),
    ),
    _FileKind(
        "passwords of programs",
        (
            *(".netrc", "_netrc", ".authinfo", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf", ".htpasswd"),
            *(".htdigest", ".git-credentials", ".npmrc", ".pypirc", ".dockercfg", ".docker/config.json", ".s3cfg"),
            *(".boto", ".databrickscfg", ".terraformrc", "terraform.rc", "rclone.conf", ".m2/settings.xml"),
            *("gh/hosts.yml", "local.settings.json", "keystore.properties"),
        ),
    ),
    _FileKind("access to a cluster", ("*.kubeconfig", ".kube/config", ".kube/config.*"), data_names=("kubeconfig*",)),
    _FileKind("variables of an infrastructure", ("*.tfvars", "*.tfvars.json", "*.tfstate", "*.tfstate.*")),
    _FileKind(
        "credentials",
        (
            *("secrets.py", "secrets.h", "*_secrets.h", ".vault-token", ".vault_pass*", ".aws/*", ".azure/*"),
            *("client_secret*.json", "service-account*.json", "service_account*.json"),
        ),
        data_names=(
            *("credentials*", "*.credentials", "*_credentials.*", "*-credentials.*", "secret.*"),
            *("secrets.*", "*.secret.*", "*.secrets.*", "*-secret.*", "*-secrets.*"),
            "vault_pass*",
        ),
        bare_names=("secrets",),
    ),
)

_DATA_ENDINGS = frozenset(
    (
        *("json", "jsonc", "json5", "yaml", "yml", "toml", "ini", "cfg", "conf", "config", "cnf", "properties", "xml"),
        *("csv", "tsv", "txt", "md", "env", "plist", "db", "sqlite", "bak", "old", "orig", "tmp", "enc", "gpg", "asc"),
        *("sops", "local", "example", "sample", "template", "dist", "dev", "prod", "production", "staging", "test"),
    )
)

_SECRET_LANGUAGES = frozenset({"dotenv", "env"})
"""Language ids of documents that hold secrets under any name."""

_PROSE = {
    **dict.fromkeys(("plaintext", "text", "txt", "plain", "fundamental"), "plaintext"),
    **dict.fromkeys(("markdown", "md", "gfm", "mdx", "rmd", "quarto", "pandoc"), "markdown"),
}
"""Language ids that editors use for prose, each with the usual id."""

PROSE_LANGUAGES = ("plaintext", "markdown")
"""Languages without completions unless the user turns them on."""


def secret_file(path: str | None, language: str = "") -> str | None:
    """Return what secrets a file holds, such as "private keys"; None for any other file.

    ``path`` is a path of any system or a URI. ``language`` is the language id of an open document.
    """
    if language.lower() in _SECRET_LANGUAGES:
        return "environment variables"
    return _by_path(path) if path else None


def why_secret(path: str | None, language: str = "") -> str | None:
    """Return a sentence for the user on why a secret file has no completions; None for any other file."""
    held = secret_file(path, language)
    if held is None:
        return None
    name = re.split(r"[/\\]", uri_path(path))[-1] if path else ""
    return f"no suggestions in {name or 'this document'}: files of this kind hold secrets ({held})"


def prose_language(language: str) -> str | None:
    """Return the usual id of a language of prose, given any editor's id; None for any other language."""
    return _PROSE.get(language.lower())


def why_off(path: str | None, language: str, *, prose: bool) -> str | None:
    """Return a sentence for the user on why a document has no completions; None if it has.

    ``prose`` says whether the user has turned on plain text and Markdown.
    """
    if (secret := why_secret(path, language)) is not None:
        return secret
    usual = prose_language(language)
    return None if prose or usual is None else f"suggestions are off in {usual} unless you turn them on"


def _rule(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(f"*/{pattern}") for pattern in patterns) or "(?!)")


_RULES = tuple((kind.holds, _rule(kind.names), _rule(kind.data_names), _rule(kind.bare_names)) for kind in _KINDS)


@lru_cache(maxsize=4096)
def _by_path(path: str) -> str | None:
    parts = re.split(r"[/\\]", uri_path(path).lower())
    name = parts[-1].strip("~#")  # a backup of an editor
    ending = name.rpartition(".")[2] if "." in name[1:] else ""
    tail = "/".join(("", *parts[-2:-1], name))
    for holds, names, data_names, bare_names in _RULES:
        is_data = not ending or ending in _DATA_ENDINGS
        if names.match(tail) or (is_data and data_names.match(tail)) or (not ending and bare_names.match(tail)):
            return holds
    return None


def uri_path(path: str) -> str:
    """Return the path of a URI; other paths are unchanged, also those that begin with a drive."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
        with suppress(ValueError):
            return unquote(urlsplit(path).path)
    return path
