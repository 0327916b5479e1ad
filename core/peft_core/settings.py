"""All settings, and how their values are found; ``settings_file`` writes one into the user's file.

Command line > environment (``PEFT_DAEMON_<NAME>``) > project file ``.peft-daemon.toml`` > user file > default.
A project file may come from a stranger's repository, so it may set only what cannot open a port or start a program.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from peft_core.errors import InvalidInput
from peft_core.paths import MAX_PATH_CHARS

WHEEL, AUTO = "wheel", "auto"
"""Values of ``llama_server``: the llama.cpp that the package depends on, and the one that was measured to be faster."""
PROJECT_FILE = ".peft-daemon.toml"
ENV_PREFIX = "PEFT_DAEMON_"
Source = Literal["command line", "environment", "project file", "user file", "default"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its default; ``peft-daemon config`` prints the descriptions."""

    model: Annotated[
        str, Meta(min_length=1, max_length=200, description="base model, an id of `peft-daemon models list`")
    ] = "qwen2.5-coder-0.5b-instruct"
    intent_model: Annotated[
        str,
        Meta(max_length=200, description="model that answers sentences and chats, an id as above; empty: `model` does"),
    ] = ""
    edit_model: Annotated[
        str,
        Meta(max_length=200, description="model that suggests next edits, an id as above; empty: `model` does"),
    ] = ""
    engine: Annotated[
        Literal["auto", "llamacpp", "torch", "upstream"],
        Meta(
            description="what runs the model: llamacpp (LoRA adapters), torch (all), or upstream: a server that gets "
            "your code; auto: llamacpp, for a folder torch"
        ),
    ] = "auto"
    llama_server: Annotated[
        str,
        Meta(
            max_length=MAX_PATH_CHARS,
            description="llama.cpp to run: the path of a llama-server, or wheel, the package's own; auto: what "
            "`engine measure` found to be the fastest",
        ),
    ] = AUTO
    gpu_layers: Annotated[
        int, Meta(ge=-1, le=10_000, description="layers of the model on the graphics card; -1: as llama_server decides")
    ] = -1
    flash_attention: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="llama.cpp's flash attention; auto: where the device has it"),
    ] = "auto"
    upstream_url: Annotated[
        str, Meta(max_length=500, description="address of that server, https://HOST:PORT; empty: none")
    ] = ""
    upstream_kind: Annotated[
        Literal["auto", "llama-server", "vllm", "sglang", "ollama", "openai"],
        Meta(description="what it is; openai: any server with /v1/completions; auto: it is asked"),
    ] = "auto"
    upstream_model: Annotated[
        str, Meta(max_length=300, description="its model, of the family of `model`; empty: the only one it has")
    ] = ""
    upstream_key_env: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,99})?$",
            description="environment variable that has its key; empty: what `peft-daemon upstream login` keeps, if any",
        ),
    ] = ""
    upstream_wait_ms: Annotated[
        int,
        Meta(ge=100, le=600_000, description="the model on this machine answers if it wrote nothing after so many ms"),
    ] = 2000
    upstream_adapters: Annotated[
        str,
        Meta(max_length=4000, description="adapters that it has: NAME=MODEL, NAME=MODEL; empty: none"),
    ] = ""
    upstream_adapters_dir: Annotated[
        str,
        Meta(
            max_length=1000,
            description="this machine's adapter folder as vllm or sglang sees it; adapters are loaded there; empty: no",
        ),
    ] = ""
    confine_engines: Annotated[
        Literal["auto", "off"],
        Meta(
            description="whether engines do without the network and all files but their own; auto: where the system "
            "can keep them from those"
        ),
    ] = "auto"
    torch_precision: Annotated[
        Literal["auto", "float32", "bfloat16", "nf4", "int8"],
        Meta(description="number type of the weights in the torch engine; auto: nf4 on CUDA, float32 on a CPU"),
    ] = "auto"
    models_dir: Annotated[str, Meta(description="folder of base models; empty: the cache folder")] = ""
    model_file: Annotated[
        Literal["auto", "original"],
        Meta(
            description="file to serve; auto: the faster copy that `models optimize` made, if there is one; "
            "original: never the copy"
        ),
    ] = "auto"
    listen: Annotated[
        Literal["auto", "unix", "tcp"],
        Meta(description="how clients connect: unix socket or TCP with a token; auto: unix where the system has it"),
    ] = "auto"
    host: Annotated[str, Meta(description="address for TCP; only loopback is accepted")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port for TCP; 0: any free port")] = 0
    idle_exit_s: Annotated[
        int, Meta(ge=0, description="stop the daemon after this many seconds without requests; 0: never")
    ] = 3600
    unload_after_s: Annotated[
        int,
        Meta(ge=0, le=86_400, description="free the model's memory after this many seconds without requests; 0: never"),
    ] = 0
    memory_limit_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000_000,
            description="most memory in MB for the daemon and its engines together; what does not fit is not loaded; "
            "0: three quarters of the machine's or container's",
        ),
    ] = 0
    context_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=131072,
            description="context size of the model in tokens, prompt and answer together; 0: 4096, more where the "
            "longest prompt needs it",
        ),
    ] = 0
    prompt_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=131072,
            description="longest prompt in tokens; 0: what is read in 0.3 s, at least 1024 and at most 8192",
        ),
    ] = 0
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads; 0: one per physical core")] = 0
    wait_policy: Annotated[
        Literal["auto", "active", "passive"],
        Meta(
            description="how CPU threads wait for each other; active: faster if nothing else runs on the machine; "
            "auto: active until another program needs the cores"
        ),
    ] = "auto"
    slots: Annotated[
        int, Meta(ge=0, le=16, description="requests answered at the same time; 0: two if memory allows, else one")
    ] = 0
    batch_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="prompt tokens per step: few cancel sooner, many read faster; 0: what is read in 0.1 s, at "
            "least 16",
        ),
    ] = 0
    speculation: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="speculative decoding with the file's text as draft: faster where code repeats; auto: on"),
    ] = "auto"
    kv_states_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="disk in MB for saved KV states, so that a document need not be read again; 0: none",
        ),
    ] = 512
    shipped_adapters: Annotated[
        bool,
        Meta(description="import the package's adapters, and use the one for filling in where you have chosen none"),
    ] = True
    max_loaded_adapters: Annotated[
        int, Meta(ge=1, le=64, description="most adapters that the engine keeps loaded at the same time")
    ] = 8
    max_tokens_fill: Annotated[int, Meta(ge=1, le=4096, description="longest completion in the editor, in tokens")] = 96
    max_tokens_intent: Annotated[int, Meta(ge=1, le=4096, description="longest answer to a sentence, in tokens")] = 256
    time_budget_fill_ms: Annotated[
        int, Meta(ge=50, le=600_000, description="completion in the editor: show what is complete after this many ms")
    ] = 30_000
    request_limit_s: Annotated[
        int,
        Meta(ge=10, le=86_400, description="longest time in seconds for a request that sets no time budget"),
    ] = 600
    look_ahead: Annotated[
        bool, Meta(description="prepare the next suggestion while one is shown, in case it is accepted")
    ] = True
    repository_context: Annotated[
        int,
        Meta(
            ge=-1,
            le=2048,
            description="most tokens of code from the workspace's other files in a prompt; 0: none; -1: none but where "
            "`tune --repo` found that they help",
        ),
    ] = -1
    feedback: Annotated[
        Literal["counts", "text", "off"],
        Meta(
            description="what is stored here about suggestions; counts: numbers; text: the code around them too; "
            "off: nothing"
        ),
    ] = "counts"
    learn: Annotated[
        Literal["off", "ask", "on"],
        Meta(
            description="learn repositories while the machine is idle; ask: where you agreed, editors ask once; on: "
            "all with enough code; off: none"
        ),
    ] = "ask"
    learn_minutes: Annotated[
        int, Meta(ge=1, le=1440, description="most minutes a day for learning in the background")
    ] = 60
    learn_idle_s: Annotated[
        int,
        Meta(ge=1, le=86_400, description="seconds without a request before learning in the background begins"),
    ] = 120
    offline: Annotated[bool, Meta(description="never use the network, not even in `models pull`")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="level of detail of the log")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="form of the log; json: one object a line, for programs")
    ] = "text"

    def digest(self) -> str:
        """Return a hash of the settings; a client with another digest than the daemon's restarts the daemon.

        It covers what is not as by default, so that versions with the same file have the same digest.
        """
        changed = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) != _DEFAULTS[name]}
        return hashlib.sha256(msgspec.json.encode(changed, order="sorted")).hexdigest()[:16]


_DEFAULTS: Mapping[str, object] = msgspec.structs.asdict(Settings())
PROJECT_SETTINGS = frozenset({"max_tokens_fill", "max_tokens_intent", "time_budget_fill_ms"})
"""The settings that a repository's own file may set."""
_LEAST_IF_NOT_0: Mapping[str, int] = {"context_tokens": 512, "prompt_tokens": 128}
_OLD_VALUES: Mapping[str, Mapping[str, str]] = {
    # "true" is from a version that did not say that text is kept, so it is no consent to keeping text.
    "feedback": {"true": "counts", "1": "counts", "false": "off", "0": "off"},
}
"""Values of earlier versions, by setting, and what they mean now."""
TUNING = "tune"
"""The table of a repository's own file that only tuning reads."""


@dataclass(frozen=True)
class Resolved:
    """Settings and where each value came from."""

    settings: Settings
    sources: Mapping[str, Source]


def resolve(
    *,
    command_line: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    project_file: Path | None = None,
    user_file: Path | None = None,
) -> Resolved:
    """Merge the sources; raises InvalidInput naming the source, the key and the allowed values."""
    env = os.environ if environ is None else environ
    fields = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    from_env = {name: env[ENV_PREFIX + name.upper()] for name in fields if env.get(ENV_PREFIX + name.upper(), "") != ""}
    layers: list[tuple[Source, Mapping[str, Any], str]] = [
        ("user file", _read(user_file), str(user_file)),
        ("project file", {k: v for k, v in _read(project_file).items() if k != TUNING}, str(project_file)),
        ("environment", from_env, "environment"),
        ("command line", {k: v for k, v in (command_line or {}).items() if v is not None}, "command line"),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = dict.fromkeys(fields, "default")
    for source, layer, where in layers:
        for key, raw in layer.items():
            if key not in fields:
                raise InvalidInput(f"unknown setting '{key}' in {where}", fix="`peft-daemon config` lists the settings")
            if source == "project file" and key not in PROJECT_SETTINGS:
                raise InvalidInput(
                    f"{where} may not set '{key}'",
                    why=f"a project file may set {', '.join(sorted(PROJECT_SETTINGS))}",
                    fix="Move it to your own file, shown by `peft-daemon config --path`",
                )
            # Environment variables are text: "8" is accepted for a number there.
            values[key] = _convert(fields[key], raw, where, strict=source != "environment")
            sources[key] = source
    return Resolved(Settings(**values), sources)


def _convert(field: msgspec.structs.FieldInfo, raw: object, where: str, *, strict: bool) -> Any:
    name = field.encode_name
    raw = _OLD_VALUES.get(name, {}).get(str(raw).lower(), raw)
    try:
        value = msgspec.convert(raw, field.type, strict=strict)
        if value and value < (least := _LEAST_IF_NOT_0.get(name, value)):
            raise msgspec.ValidationError(f"Expected 0 or `int` >= {least}")
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"bad value {raw!r} for '{name}' in {where}",
            why=str(error),
            fix="`peft-daemon config` shows what each setting means",
        ) from None
    return value


def find_setting(name: str) -> msgspec.structs.FieldInfo:
    """Return the field of a setting; raises InvalidInput if there is none of this name."""
    found = next((field for field in msgspec.structs.fields(Settings) if field.encode_name == name), None)
    if found is None:
        raise InvalidInput(f"there is no setting '{name}'", fix="`peft-daemon config` lists the settings")
    return found


def parse_value(name: str, text: str) -> str | int | bool:
    """Return what a user typed for a setting as its value; raises InvalidInput with what is allowed."""
    value: str | int | bool = _convert(find_setting(name), text, "the command", strict=False)
    return value


def describe(name: str) -> str:
    """Return the one-line description of a setting."""
    return next((m.description or "" for m in get_args(find_setting(name).type) if isinstance(m, Meta)), "")


def allowed_values(name: str) -> dict[str, Any]:
    """Return what a setting may be, as JSON Schema says it: ``type``, ``enum``, ``minimum``, ``maximum``."""
    schema = msgspec.json.schema(find_setting(name).type)
    if values := schema.get("enum"):
        schema = {"type": "string", "enum": [*get_args(_literal(name))] or values}
    return {key: schema[key] for key in ("type", "enum", "minimum", "maximum") if key in schema}


def _literal(name: str) -> object:
    """The type of a setting without what is noted of it."""
    return get_args(find_setting(name).type)[0]


def find_project_file(start: Path) -> Path | None:
    """Return the nearest ``.peft-daemon.toml`` at or above ``start``; None if there is none."""
    for folder in (start, *start.parents):
        candidate = folder / PROJECT_FILE
        with contextlib.suppress(OSError):  # a folder above may be closed to this user
            if candidate.is_file():
                return candidate
    return None


def _read(path: Path | None) -> Mapping[str, Any]:
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        return {} if path is None or not path.is_file() else tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), fix="Correct or delete that file") from None
