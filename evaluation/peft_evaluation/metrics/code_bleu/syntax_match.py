"""The third part: the share of the reference's subtrees that the answer has as well, by shape alone.

A shape is what tree-sitter prints of a node: kinds and fields of the named nodes, no text. Numbers stand for shapes
here: printing every subtree takes time with the square of the depth, and a very deep one overflows tree-sitter's stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tree_sitter import Node

_Shape = tuple[object, ...]


def syntax_match(reference: Node, candidate: Node) -> float:
    """Between 0 and 1. A shape that the answer has once counts for each time the reference has it."""
    numbers: dict[_Shape, int] = {}
    theirs, ours = list(_shapes(reference, numbers)), set(_shapes(candidate, numbers))
    return sum(shape in ours for shape in theirs) / len(theirs)


def _shapes(root: Node, numbers: dict[_Shape, int]) -> Iterator[int]:
    """The number of each subtree that is more than a token, and of the whole; equal shapes have equal numbers.

    ``numbers`` are those given so far; more are added.
    """
    cursor = root.walk()
    levels: list[list[_Shape]] = [[]]
    down = True
    while True:
        if down and cursor.goto_first_child():
            levels.append([])
            continue
        node, inner = cast("Node", cursor.node), [] if down else levels.pop()
        number = numbers.setdefault((_kind(node), *inner), len(numbers))
        whole = len(levels) == 1
        if whole or node.child_count:
            yield number
        if whole:
            return
        # Signs and keywords are not printed, what is in them is.
        levels[-1] += [(cursor.field_name, number)] if node.is_named or node.is_missing else inner
        down = cursor.goto_next_sibling()
        if not down:
            cursor.goto_parent()


def _kind(node: Node) -> _Shape:
    if node.type == "ERROR" and not node.child_count:
        return (str(node),)  # The one place where a character is part of the shape.
    return node.type, node.is_named, node.is_missing
