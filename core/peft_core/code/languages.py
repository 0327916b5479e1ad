"""The language of a file by its name, and the names that a language's syntax tree has for blocks and functions.

Each grammar is a package of its own, loaded when first needed. Without a grammar, ``structure`` goes by lines and
indentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "python": (".py", ".pyi", ".pyw"),
    "javascript": (".js", ".mjs", ".cjs"),
    "javascriptreact": (".jsx",),
    "typescript": (".ts", ".mts", ".cts"),
    "typescriptreact": (".tsx",),
    "go": (".go",),
    "rust": (".rs",),
    "java": (".java",),
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh"),
    "csharp": (".cs",),
    "kotlin": (".kt", ".kts"),
    "swift": (".swift",),
    "scala": (".scala",),
    "dart": (".dart",),
    "php": (".php",),
    "ruby": (".rb",),
    "shellscript": (".sh", ".bash"),
    "perl": (".pl", ".pm"),
    "r": (".r", ".R"),
}
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes}


def language_of(path: str) -> str | None:
    """Return the language of a file by its name, as an id of the language server protocol; None if it is not code."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix)


@dataclass(frozen=True)
class Grammar:
    """A tree-sitter grammar, and its names for the nodes that holes are cut from."""

    package: str
    blocks: frozenset[str]
    """Nodes whose children are the statements of a block."""
    functions: frozenset[str]
    types: frozenset[str] = frozenset()
    """Nodes that define a type: they hold functions and are not statements themselves."""
    comments: frozenset[str] = frozenset({"comment"})
    strings: frozenset[str] = frozenset()
    """Literals that may span lines; their lines are not code."""
    entry: str = "language"
    """The function of the package that returns the grammar."""


def _script(package: str, entry: str = "language") -> Grammar:
    return Grammar(
        package,
        blocks=frozenset({"program", "statement_block"}),
        functions=frozenset({"function_declaration", "method_definition", "generator_function_declaration"}),
        types=frozenset({"class_declaration", "interface_declaration", "enum_declaration", "export_statement"}),
        strings=frozenset({"template_string", "jsx_text"}),
        entry=entry,
    )


def _c(package: str) -> Grammar:
    return Grammar(
        package,
        blocks=frozenset({"compound_statement"}),
        functions=frozenset({"function_definition"}),
        types=frozenset({"struct_specifier", "class_specifier", "enum_specifier"}),
        strings=frozenset({"raw_string_literal", "preproc_def", "preproc_function_def"}),
    )


GRAMMARS: Mapping[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        blocks=frozenset({"module", "block"}),
        functions=frozenset({"function_definition"}),
        types=frozenset({"class_definition"}),
        strings=frozenset({"string"}),
    ),
    "javascript": _script("tree_sitter_javascript"),
    "javascriptreact": _script("tree_sitter_javascript"),
    "typescript": _script("tree_sitter_typescript", "language_typescript"),
    "typescriptreact": _script("tree_sitter_typescript", "language_tsx"),
    "go": Grammar(
        "tree_sitter_go",
        blocks=frozenset({"source_file", "statement_list"}),
        functions=frozenset({"function_declaration", "method_declaration"}),
        types=frozenset({"type_declaration"}),
        strings=frozenset({"raw_string_literal"}),
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        blocks=frozenset({"block"}),
        functions=frozenset({"function_item"}),
        types=frozenset({"struct_item", "enum_item", "impl_item", "trait_item", "mod_item"}),
        comments=frozenset({"line_comment", "block_comment"}),
        strings=frozenset({"string_literal", "raw_string_literal"}),
    ),
    "java": Grammar(
        "tree_sitter_java",
        blocks=frozenset({"block", "constructor_body"}),
        functions=frozenset({"method_declaration", "constructor_declaration"}),
        types=frozenset({"class_declaration", "interface_declaration", "enum_declaration"}),
        comments=frozenset({"line_comment", "block_comment"}),
        strings=frozenset({"string_literal"}),
    ),
    "c": _c("tree_sitter_c"),
    "cpp": _c("tree_sitter_cpp"),
}


def grammar_of(language: str) -> Grammar | None:
    """Return the grammar of a language; None if there is none, or its package is not installed."""
    grammar = GRAMMARS.get(language)
    return grammar if grammar and find_spec(grammar.package) else None


@cache
def parser_of(grammar: Grammar) -> Parser:
    """Return a parser for a grammar; two threads must not use it at the same time."""
    import tree_sitter  # noqa: PLC0415  (0.1 s, and not needed to list files)

    return tree_sitter.Parser(tree_sitter.Language(getattr(import_module(grammar.package), grammar.entry)()))
