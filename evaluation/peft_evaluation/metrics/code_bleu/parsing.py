"""Python as tree-sitter sees it: never fails, marks what is wrong, and keeps every token."""

from __future__ import annotations

from functools import cache

import tree_sitter_python
from tree_sitter import Language, Node, Parser


def parse(code: str) -> Node:
    """The root of the tree."""
    return _parser().parse(code.encode(errors="replace")).root_node


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_python.language()))
