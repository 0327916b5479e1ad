"""Files that hold secrets are known by their names, in every way that a name comes."""

from __future__ import annotations

import pytest

from peft_core.privacy.files import prose_language, secret_file, why_off, why_secret

SECRET = [
    *(".env", ".env.local", ".env.example", "prod.env", ".envrc", ".ENV", ".env~"),
    *("server.pem", "tls.key", "store.p12", "a.pfx", "a.jks", "id_rsa", "id_ed25519", "id_deploy", "id_rsa.bak"),
    *(".netrc", "_netrc", ".npmrc", ".pypirc", ".htpasswd", ".git-credentials", ".pgpass", ".docker/config.json"),
    *(
        "kubeconfig",
        "kubeconfig.yaml",
        ".kube/config",
        "a.kubeconfig",
        "terraform.tfvars",
        "x.tfvars.json",
        "a.tfstate",
    ),
    *(
        "credentials",
        "credentials.json",
        "credentials.yml.enc",
        "aws_credentials.csv",
        "secrets.yaml",
        "secrets.py",
        "secrets.h",
    ),
    *("secrets", "app-secret.yaml", "arduino_secrets.h", ".aws/config", ".ssh/config", "client_secret_1.json"),
]
ORDINARY = [
    *("environment.py", "env.py", ".environment", "main.py", "README.md", "Makefile", ".gitignore", "config", ""),
    *("credentials.py", "credentials_test.go", "id_generator.py", "id_map.csv", "id_rsa.pub", "kubeconfig.go"),
    *("secret_plans.py", "keys.py", "tokens.json", "service_account.go", "docker/config.json", "secret.ts"),
    *("secrets.go", "secrets.ts", "secrets.test.ts", "secrets.rs", "secrets.tf"),
]


@pytest.mark.parametrize("name", SECRET)
def test_a_secret_file_is_known_wherever_it_lies_and_however_it_is_named(name: str) -> None:
    windows = "C:\\work\\" + name.replace("/", "\\")
    for path in (name, f"/home/me/{name}", windows, f"file:///home/me/{name.replace('~', '%7E')}", f"untitled:{name}"):
        assert secret_file(path), path


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_file_is_none(name: str) -> None:
    for path in (name, f"/home/me/{name}", f"file:///home/me/{name}"):
        assert secret_file(path) is None, path


def test_what_is_no_path_is_no_secret_file() -> None:
    assert secret_file(None) is None
    assert secret_file("file://[broken") is None
    assert secret_file("\0" * 5000) is None


def test_a_document_of_environment_variables_is_secret_whatever_it_is_called() -> None:
    assert secret_file("untitled:Untitled-1", "dotenv") == "environment variables"
    assert why_secret(None, "dotenv") == (
        "no suggestions in this document: files of this kind hold secrets (environment variables)"
    )


def test_the_user_is_told_the_file_and_what_it_holds() -> None:
    assert why_secret("/a/tls.key") == "no suggestions in tls.key: files of this kind hold secrets (private keys)"
    assert why_secret("/a/tls.py") is None


def test_prose_is_off_until_it_is_turned_on_and_secrets_stay_off() -> None:
    assert prose_language("text") == "plaintext"
    assert prose_language("GFM") == "markdown"
    assert prose_language("python") is None
    assert why_off("/a/notes.md", "markdown", prose=False) == "suggestions are off in markdown unless you turn them on"
    assert why_off("/a/notes.md", "markdown", prose=True) is None
    assert why_off("/a/x.py", "python", prose=False) is None
    assert why_off("/a/.env", "python", prose=True)
