"""Secrets stay out of suggestions, prompts and the disk: real server, real daemon, a played model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
from lsprotocol import types

from peft_core.api_types import CompleteRequest, FinishReason
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from support.editor import MODERN, Editor, editor, uri_of
from support.played_daemon import Played

KEY = "sk" + "_live_4242abcd4242abcd"
DOTENV = f"STRIPE_API_KEY={KEY}\nSMTP_USER=me\nSMTP_PASSWORD="
ANSWERS = {"SMTP_PASSWORD=": KEY, "x = ": "y", "db_password = ": f'"{KEY}"', "- ": "one more"}
WHOLE = {"showAfterMs": 0}
"""Suggestions come whole, however slow the machine is."""
LISTS = types.ClientCapabilities(workspace=MODERN.workspace)
"""An editor that cannot show ghost text."""


def everything_kept(played: Played) -> bytes:
    """All files of the home: feedback, logs, whatever there is."""
    return b"".join(file.read_bytes() for file in played.paths.data.rglob("*") if file.is_file())


async def why_off(one: Editor, uri: str) -> str:
    """What the status says of a document that gets no suggestions."""

    def says(status: dict[str, Any]) -> bool:
        return any(each.uri == uri for each in status["off"])

    status = await one.status(says)
    return str(next(each.why for each in status["off"] if each.uri == uri))


async def test_in_an_env_file_the_key_of_the_line_above_is_not_suggested_read_or_kept(
    played: Played, tmp_path: Path
) -> None:
    played.model.answers(ANSWERS)
    uri = uri_of(tmp_path / ".env")
    async with editor(played.environ, settings={**WHOLE, "feedback": "text"}) as one:
        await one.ready()
        one.open(uri, DOTENV, "dotenv")
        assert "no suggestions in .env" in await why_off(one, uri)
        assert await one.inline(uri, 2, 14) == []
        assert await one.inline(uri, 2, 14, automatic=True) == []
        one.move(uri, 2, 14)
        one.edit(uri, (2, 14), (2, 14), "hunter2")
        one.save(uri)
        # An ordinary file afterwards is served as ever: nothing of the other is in its prompt.
        code = uri_of(tmp_path / "app.py")
        one.open(code, "x = ")
        (item,) = await one.inline(code, 0, 4)
        assert item.insert_text == "y"
        assert await one.leave() == 0
    prompts = "".join((*played.model.asked, *played.model.read))
    for piece in (KEY, "STRIPE", "SMTP", "hunter2"):
        assert piece not in prompts
        assert piece.encode() not in everything_kept(played)


async def test_who_asks_by_hand_is_told_once_why_there_is_nothing(played: Played, tmp_path: Path) -> None:
    uri = uri_of(tmp_path / "server.key")
    async with editor(played.environ, settings=WHOLE) as one:
        await one.ready()
        one.open(uri, "# write a function that adds a and b\n", "python")
        for _ in range(2):
            assert await one.inline(uri, 1, 0) == []
        target = {"uri": uri, "range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}}
        actions = await one.client.text_document_code_action_async(
            types.CodeActionParams(
                types.TextDocumentIdentifier(uri),
                types.Range(types.Position(0, 0), types.Position(0, 0)),
                types.CodeActionContext([]),
            )
        )
        assert not actions
        assert await one.command("peft-daemon.propose", target) is None
        assert await one.command("peft-daemon.generate", {"uri": uri, "line": 0}) is False
        told = [(each.type, each.message) for each in one.client.messages]
    assert (
        told
        == [
            (
                types.MessageType.Info,
                "peft-daemon: no suggestions in server.key: files of this kind hold secrets (private keys)",
            )
        ]
        * 3
    )
    assert played.model.asked == played.model.read == []


async def test_no_setting_turns_a_file_with_secrets_on(played: Played, tmp_path: Path) -> None:
    played.model.answers(ANSWERS)
    settings = {**WHOLE, "enabled": True, "disabledLanguages": []}
    async with editor(played.environ, settings=settings, options=settings) as one:
        await one.ready()
        for name in (".env", "id_rsa", "secrets.yaml", ".npmrc"):
            one.open(uri_of(tmp_path / name), "x = ")
            assert await one.inline(uri_of(tmp_path / name), 0, 4) == []
    assert played.model.asked == played.model.read == []


async def test_prose_is_off_until_the_user_turns_it_on(played: Played, tmp_path: Path) -> None:
    played.model.answers(ANSWERS)
    documents = {language: uri_of(tmp_path / language) for language in ("markdown", "plaintext", "text")}
    async with editor(played.environ, settings=WHOLE) as one:
        await one.ready()
        for language, uri in documents.items():
            one.open(uri, "- ", language)
            assert "disabledLanguages" in await why_off(one, uri)
            assert await one.inline(uri, 0, 2, automatic=True) == []
        seen = len(one.statuses)
        one.client.set_configuration({**WHOLE, "disabledLanguages": []}, section="peft-daemon")
        one.client.workspace_did_change_configuration(types.DidChangeConfigurationParams({}))
        while all(status["off"] for status in one.statuses[seen:]):
            await one.news()
        for uri in documents.values():
            (item,) = await one.inline(uri, 0, 2)
            assert item.insert_text == "one more"


async def test_the_completion_list_is_as_empty_as_the_ghost_text(played: Played, tmp_path: Path) -> None:
    played.model.answers(ANSWERS)
    async with editor(played.environ, capabilities=LISTS) as one:
        await one.ready()
        for name, language in ((".env", "sh"), ("notes.md", "markdown")):
            uri = uri_of(tmp_path / name)
            one.open(uri, "x = ", language)
            answer = await one.client.text_document_completion_async(
                types.CompletionParams(types.TextDocumentIdentifier(uri), types.Position(0, 4))
            )
            assert isinstance(answer, types.CompletionList)
            assert list(answer.items) == []
    assert played.model.asked == played.model.read == []


async def test_in_code_a_secret_is_masked_in_the_prompt_and_none_is_suggested(played: Played, tmp_path: Path) -> None:
    played.model.answers(ANSWERS)
    uri = uri_of(tmp_path / "app.py")
    async with editor(played.environ, settings=WHOLE) as one:
        await one.ready()
        one.open(uri, f'API_KEY = "{KEY}"\nsize = 3\ndb_password = \nx = ')
        assert await one.inline(uri, 2, 14) == []
        (item,) = await one.inline(uri, 3, 4)
        assert item.insert_text == "y"
        assert item.range == types.Range(types.Position(3, 4), types.Position(3, 4))
    assert played.model.asked
    for prompt in played.model.asked:
        assert KEY not in prompt
        assert "size = 3" in prompt


async def test_the_daemon_refuses_whatever_its_clients_do(played: Played) -> None:
    played.model.answers(ANSWERS)
    async with await DaemonClient.connect(paths=played.paths, start=False) as client:
        for path, language in (("/p/.env", "python"), (None, "dotenv"), ("/p/.ssh/id_rsa", "")):
            request = CompleteRequest(prefix="x = ", path=path, language=language, prose=True, document="d")
            answer = await client.complete(request)
            assert (answer.text, answer.finish_reason) == ("", FinishReason.OFF)
            assert "hold secrets" in answer.why
            assert not (await client.warm(request)).warm
        prose = CompleteRequest(prefix="- ", language="markdown", document="d")
        assert (await client.complete(prose)).finish_reason is FinishReason.OFF
        assert not (await client.warm(prose)).warm
        assert played.model.asked == played.model.read == []
        on = CompleteRequest(prefix="- ", language="markdown", prose=True)
        assert (await client.complete(on)).text == "one more"
        infill: Any = {
            "input_prefix": f'API_KEY = "{KEY}"\n',
            "prompt": "x = ",
            "input_extra": [
                {"filename": "deploy/.env", "text": "PORT=80\n"},
                {"filename": "other.py", "text": f'KEY = "{KEY}"\nsize = 3\n'},
            ],
        }
        completions: Any = {"prompt": f'API_KEY = "{KEY}"\nx = ', "max_tokens": 8}
        daemon = find_running_daemon(played.paths)
        assert daemon is not None
        transport = httpx.AsyncHTTPTransport(uds=daemon.address.removeprefix("unix:"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.post("/infill", json=infill)).json()["content"] == "y"
            assert (await http.post("/v1/completions", json=completions)).status_code == 200
            asked = len(played.model.asked)
            written = "<|file_sep|>deploy/.env\n<|fim_prefix|>x = <|fim_suffix|>\n<|fim_middle|>"
            (choice,) = (await http.post("/v1/completions", json={"prompt": written})).json()["choices"]
            assert (choice["text"], choice["finish_reason"]) == ("", "stop")
            assert len(played.model.asked) == asked
    of_infill, of_completions = played.model.asked[-2:]
    assert "size = 3" in of_infill
    assert "PORT" not in of_infill
    for prompt in (of_infill, of_completions):
        assert KEY not in prompt
        assert "API_KEY" in prompt


async def test_no_log_has_the_text_of_a_document_not_even_in_detail(played: Played, tmp_path: Path) -> None:
    played.model.answers({"unmistakable = ": "suggested_text"})
    log = tmp_path / "log"
    detailed = f"exec {sys.executable} -m peft_daemon lsp --log-level debug 2>{log}"
    uri = uri_of(tmp_path / "app.py")
    async with editor(played.environ, settings=WHOLE, command=("sh", "-c", detailed)) as one:
        await one.ready()
        one.open(uri, "unmistakable = ")
        (item,) = await one.inline(uri, 0, 15)
        assert item.insert_text == "suggested_text"
        one.edit(uri, (0, 15), (0, 15), "suggested_text")
        await one.leave()
    said = log.read_text()
    assert "textDocument/inlineCompletion" in said
    for piece in ("unmistakable = ", "suggested_text"):
        assert piece not in said
