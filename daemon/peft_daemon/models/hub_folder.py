"""A model in transformers' layout on this disk: ``config.json``, safetensors, ``tokenizer.json``.

Only JSON is read here: the config, the headers of the weight files, the tokenizer. No library of tuning is needed, no
code of the folder runs, and a pickle is never opened. What cannot be loaded faithfully is refused: code or quantization
of the folder's own, an adapter beside the weights, files that are cut short or missing. Whether config and weights
fit each other shows when the model is loaded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from peft_core.errors import InvalidInput, NotFound
from peft_core.files import format_bytes
from peft_core.gguf import TokenKind, Vocabulary
from peft_daemon.models.catalogue import STORED_BYTES
from peft_daemon.models.content import content_bytes, weight_files
from peft_daemon.models.facts import UNKNOWN_LICENCE, ModelFacts

CONFIG, INDEX, TOKENIZER = "config.json", "model.safetensors.index.json", "tokenizer.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
CARD = "README.md"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
"""Suffixes of formats that can run code when loaded."""
MAX_JSON_BYTES = 64 << 20
"""Above the largest published tokenizers, which have 35 MB."""
MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file: the limit of its format."""
MAX_CARD_BYTES = 4096
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
"""Keys of the longest context in ``config.json``, by family."""
MAX_CONTEXT_TOKENS = 1 << 24
"""A larger number means that no limit was set."""
UNLIMITED_CONTEXT_TOKENS = 512
"""Of a model with relative positions whose files name no limit: T5 was trained with it."""

_CONTROL = re.compile(r"▁?(<.+>|\[.+\])")
"""The form of control tokens: many tokenizers do not mark those for filling in as special."""
_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
"""Roles of tokens as transformers names them, and as GGUF does."""
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LENGTH = struct.Struct("<Q")


class StoredTensor(msgspec.Struct, frozen=True):
    """One entry in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True)
class HubFolder:
    """The config and the headers of all weight files."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def family(self) -> str:
        """``config.model_type``; empty if it is missing."""
        kind = self.config.get("model_type")
        return kind if isinstance(kind, str) else ""

    @property
    def encoder_decoder(self) -> bool:
        """Whether it has an encoder."""
        return self.config.get("is_encoder_decoder") is True

    def shape(self, module: str) -> tuple[int, ...]:
        """Return the shape of a module's weight, empty if it has none.

        Some folders leave out the name of the outermost module (``transformer``, ``model``).
        """
        for name in (module, module.partition(".")[2]):
            if (found := self.tensors.get(f"{name}.weight")) is not None:
                return found.shape
        return ()

    def size(self, *keys: str) -> int:
        """Return the first of these numbers that the config has, else 0."""
        values = (self.config.get(key) for key in keys)
        return next((each for each in values if isinstance(each, int) and not isinstance(each, bool)), 0)


def read_hub_folder(path: Path) -> HubFolder:
    """Read config and headers.

    Raises NotFound if there is no model, InvalidInput for one that is damaged or that cannot be loaded faithfully.
    """
    if not path.is_dir():
        raise NotFound(f"no folder {path}", fix="Give a folder written by transformers' `save_pretrained`")
    try:
        if not (path / CONFIG).is_file():
            raise _no_config(path)
        if (path / "adapter_config.json").exists():
            raise InvalidInput(
                f"{path} holds an adapter beside the model",
                why="transformers would load both as one",
                fix="Move adapter_config.json away; an adapter of its own is for `peft-daemon adapters import`",
            )
        config = _json_object(path / CONFIG)
        _refuse_own_code(path, config)
        files = weight_files(path)
        if not files:
            raise _no_weights(path)
        tensors: dict[str, StoredTensor] = {}
        for file in files:
            tensors |= _read_header(file)
        _require_shards(path, {file.name for file in files})
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or path} cannot be read", why=error.strerror or str(error), fix="Check its permissions"
        ) from None
    return HubFolder(path, config, tensors)


def read_folder_facts(folder: HubFolder, *, context_tokens: int | None = None) -> ModelFacts:
    """Return what the folder says of its model; ``context_tokens`` corrects its longest context.

    Raises InvalidInput if no longest context is known, or for weights of a type that is not known.
    """
    context = context_tokens or folder.size(*CONTEXT_KEYS) or _tokenizer_limit(folder.path)
    if not context and folder.encoder_decoder:
        context = UNLIMITED_CONTEXT_TOKENS
    if not 0 < context <= MAX_CONTEXT_TOKENS:
        raise InvalidInput(
            f"{folder.path / CONFIG} names no longest context",
            why=f"it has none of {', '.join(CONTEXT_KEYS)}",
            fix="Name it with `--context TOKENS`",
        )
    return ModelFacts(
        name=folder_name(folder.path),
        family=folder.family,
        quantization=_number_type(folder),
        licence=_licence(folder.path),
        context_tokens=context,
        bytes=content_bytes(folder.path),
    )


def folder_name(path: Path) -> str:
    """Return what to call the model: the folder's name, in the hub's cache the repository's."""
    path = path.absolute()
    if _COMMIT.fullmatch(path.name) and path.parent.name == "snapshots":
        return path.parents[1].name.rpartition("--")[2]
    return path.name


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Return the folder's ``tokenizer.json``, with control tokens marked as special and no text cut or padded.

    Raises NotFound if the folder has none, InvalidInput if it is damaged.
    """
    file = path / TOKENIZER
    if not file.is_file():
        raise NotFound(
            f"{path} holds no {TOKENIZER}",
            fix='Write it with `python -c "from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{path}').save_pretrained('{path}')\"`",
        )
    try:
        tokenizer = _json_object(file)
        for token in tokenizer["added_tokens"]:
            token["special"] = bool(token["special"]) or _CONTROL.fullmatch(token["content"]) is not None
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{file} is damaged", why=f"{type(error).__name__}: {error}", fix=_FETCH_AGAIN) from None
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read", why=error.strerror or str(error), fix="Check its permissions"
        ) from None
    return {**tokenizer, "truncation": None, "padding": None}


def chat_template(path: Path) -> str:
    """Return the folder's chat template, empty if it has none; raises InvalidInput for a damaged file."""
    if (path / CHAT_TEMPLATE).is_file():
        try:
            return (path / CHAT_TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path / CHAT_TEMPLATE} cannot be read", why=str(error), fix=_FETCH_AGAIN) from None
    template = _optional(path / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def read_folder_vocabulary(path: Path) -> Vocabulary:
    """Return the folder's vocabulary as a GGUF file would have it, for what is found out from one.

    Raises NotFound without ``tokenizer.json``, InvalidInput for a damaged file.
    """
    tokenizer = read_tokenizer(path)
    try:
        model, added = tokenizer["model"], tokenizer["added_tokens"]
        words = model["vocab"]
        # A Unigram model has pairs of token and score, in the order of their ids.
        ids = {each[0]: at for at, each in enumerate(words)} if isinstance(words, list) else dict(words)
        ids |= {token["content"]: token["id"] for token in added}
        tokens = [""] * (max(ids.values()) + 1)
        kinds = [int(TokenKind.NORMAL)] * len(tokens)
        for token, id_ in ids.items():
            tokens[id_] = token
        for token in added:
            kinds[token["id"]] = TokenKind.CONTROL if token["special"] else TokenKind.USER_DEFINED
    except (KeyError, TypeError, ValueError, IndexError, MemoryError) as error:
        raise InvalidInput(
            f"{path / TOKENIZER} is damaged", why=f"{type(error).__name__}: {error}", fix=_FETCH_AGAIN
        ) from None
    metadata: dict[str, Any] = {
        f"tokenizer.ggml.{_ROLES[role]}_token_id": id_ for role, id_ in _token_roles(path, ids).items()
    }
    if template := chat_template(path):
        metadata["tokenizer.chat_template"] = template
    if isinstance(begins := _optional(path / TOKENIZER_CONFIG).get("add_bos_token"), bool):
        metadata["tokenizer.ggml.add_bos_token"] = begins
    return Vocabulary(
        model="llama" if model.get("byte_fallback") else "gpt2",
        pretokenizer="",
        tokens=tuple(tokens),
        kinds=tuple(kinds),
        merges=(),
        scores=(),
        metadata=metadata,
    )


_FETCH_AGAIN = "Fetch the folder again, or save it again with transformers' `save_pretrained`"


def _no_config(path: Path) -> NotFound:
    files = sorted(path.glob("*.gguf"))
    return NotFound(
        f"{path} holds no {CONFIG}",
        fix=f"Add the file: `peft-daemon models add {files[0]}`"
        if files
        else "Give a folder written by transformers' `save_pretrained`",
    )


def _no_weights(path: Path) -> InvalidInput:
    pickles = sorted(each.name for each in path.iterdir() if each.suffix.lower() in PICKLE_SUFFIXES)
    if not pickles:
        return InvalidInput(f"{path} holds no weights", why="it has no safetensors file", fix=_FETCH_AGAIN)
    kind = "Seq2SeqLM" if _json_object(path / CONFIG).get("is_encoder_decoder") else "CausalLM"
    code = (
        f"from transformers import AutoTokenizer as T, AutoModelFor{kind} as M; "
        f"[each.from_pretrained('{path}').save_pretrained('{path}-safetensors') for each in (T, M)]"
    )
    return InvalidInput(
        f"{path} holds no safetensors",
        why=f"it holds {pickles[0]}, and such files run code when they are loaded",
        fix=f'Where you trust it, write it anew, and add that folder: `python -c "{code}"`',
    )


def _refuse_own_code(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("auto_map"):
        raise InvalidInput(
            f"{path / CONFIG} names code of its own (auto_map)",
            why="such code is never run here, and without it the weights may mean something else",
            fix="Choose a model that transformers knows; if this one needs no code of its own, delete `auto_map`",
        )
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise InvalidInput(
            f"the weights in {path} are quantized ({method or 'quantization_config'})",
            why="folders are read as float32, float16 or bfloat16",
            fix="Choose the model as it was released; `torch_precision` quantizes it when it is loaded",
        )


def _read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file; raises OSError, and InvalidInput if it is not whole."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else size
        if length > min(size - _LENGTH.size, MAX_HEADER_BYTES):
            raise _cut_short(file, "its header is not whole")
        try:
            entries = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
            entries.pop("__metadata__", None)
            tensors = {name: msgspec.json.decode(raw, type=StoredTensor) for name, raw in entries.items()}
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{file} is not a safetensors file", why=str(error), fix=_FETCH_AGAIN) from None
    needed = _LENGTH.size + length + max((each.data_offsets[1] for each in tensors.values()), default=0)
    if size < needed:
        raise _cut_short(file, f"its header promises {format_bytes(needed)}, it has {format_bytes(size)}")
    return tensors


def _cut_short(file: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{file} is cut short", why=why, fix="Fetch it again")


def _require_shards(path: Path, there: set[str]) -> None:
    """Raise InvalidInput if the index names a file that is not there."""
    if not (path / INDEX).is_file():
        return
    named = _json_object(path / INDEX).get("weight_map")
    missing = sorted(set(map(str, named.values())) - there) if isinstance(named, dict) else []
    if missing:
        raise InvalidInput(
            f"{path} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            why=f"{INDEX} names it",
            fix="Fetch the rest of the folder",
        )


def _number_type(folder: HubFolder) -> str:
    """Return the type of most weights; raises InvalidInput for one that is not known."""
    sizes: dict[str, int] = {}
    for tensor in folder.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    most = max(sizes, key=lambda each: sizes[each], default="none")
    if most not in STORED_BYTES:
        raise InvalidInput(
            f"the weights in {folder.path} are of the type {most}",
            why=f"known are {', '.join(STORED_BYTES)}",
            fix="Choose the model as it was released",
        )
    return most


def _token_roles(path: Path, ids: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of the tokens that begin and end a text, pad it or stand for the unknown, by role."""
    named = [_optional(path / TOKENIZER_CONFIG), _optional(path / SPECIAL_TOKENS)]
    config = _optional(path / CONFIG)
    found: dict[str, int] = {}
    for role in _ROLES:
        tokens = (values.get(f"{role}_token") for values in named)
        texts = (token.get("content") if isinstance(token, dict) else token for token in tokens)
        given: Any = config.get(f"{role}_token_id")
        known = [ids[text] for text in texts if isinstance(text, str) and text in ids]
        given = given if isinstance(given, list) else [given]
        known += [id_ for id_ in given if isinstance(id_, int) and id_ in ids.values()]
        if known:
            found[role] = known[0]
    return found


def _tokenizer_limit(path: Path) -> int:
    limit = _optional(path / TOKENIZER_CONFIG).get("model_max_length")
    return limit if isinstance(limit, int) and 0 < limit <= MAX_CONTEXT_TOKENS else 0


def _licence(path: Path) -> str:
    """Return the licence that the model's card names."""
    try:
        with (path / CARD).open(encoding="utf-8", errors="replace") as card:
            found = _LICENCE.search(card.read(MAX_CARD_BYTES))
    except OSError:
        return UNKNOWN_LICENCE
    return found[1] if found else UNKNOWN_LICENCE


def _optional(file: Path) -> dict[str, Any]:
    """Return a JSON file, empty if there is none; raises InvalidInput for a damaged one."""
    try:
        return _json_object(file) if file.is_file() else {}
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read", why=error.strerror or str(error), fix=_FETCH_AGAIN) from None


def _json_object(file: Path) -> dict[str, Any]:
    """Return a JSON object; raises OSError, and InvalidInput if it is none."""
    if file.stat().st_size > MAX_JSON_BYTES:
        raise InvalidInput(f"{file} is larger than {format_bytes(MAX_JSON_BYTES)}", fix=_FETCH_AGAIN)
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not a JSON object", why=str(error), fix=_FETCH_AGAIN) from None
