"""Python as tree-sitter sees it: never fails, marks what is wrong, and keeps every token."""

from __future__ import annotations

from tree_sitter import Node

from peft_core.code.languages import GRAMMARS, parser_of


def parse(code: str) -> Node:
    """The root of the tree."""
    return parser_of(GRAMMARS["python"]).parse(code.encode(errors="replace")).root_node
