"""The data flow of Python code: which value comes from which (GraphCodeBERT, arXiv 2009.08366, as CodeBLEU uses it).

The tree is walked with a map from each name to the tokens that its value may come from. Loops are walked twice, so that
values of one round reach the next. Strings, and all tokens but keywords and operators, are treated like names.
Attributes, calls and scopes are not distinguished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tree_sitter import Node

COMES, COMPUTED = "comesFrom", "computedFrom"
MAX_LOOP_DEPTH = 8
"""Loops nested deeper than this are walked once only, as each level doubles the time."""


@dataclass(frozen=True)
class Edge:
    """A token, and the tokens that its value comes from."""

    name: str
    token: int
    """Position among the tokens of the code."""
    relation: str
    sources: tuple[str, ...] = ()
    origins: tuple[int, ...] = ()


Flow = tuple[str, str, tuple[str, ...]]
"""An edge without its tokens, and with numbered names: name, relation, sources."""
_Origins = Mapping[str, tuple[int, ...]]
_Span = tuple[tuple[int, int], tuple[int, int]]


class _IncompleteStatement(Exception):
    """A statement lacks a part; code with such a statement has no data flow."""


def data_flow(root: Node, code: str) -> list[Flow]:
    """Return all flows of ``code``, whose tree is ``root``, in the order of their tokens.

    The list is empty if a statement is incomplete, if a value is a part of a string, or if the code is nested too deep.
    """
    try:
        edges, _ = _DataFlowWalk.of(root, code).visit(root, {})
    except (_IncompleteStatement, KeyError, IndexError, RecursionError):
        return []
    return _numbered(_by_token(_connected(_sorted(edges))))


def match(reference: Sequence[Flow], candidate: Sequence[Flow]) -> float | None:
    """Return the share of the reference's flows that the candidate has; None if the reference has none.

    Each flow of the candidate counts once.
    """
    found, of = counts(reference, candidate)
    return found / of if of else None


def counts(reference: Sequence[Flow], candidate: Sequence[Flow]) -> tuple[int, int]:
    """Return how many of the reference's flows the candidate has, and how many there are; see ``match``."""
    left, found = list(candidate), 0
    for flow in reference:
        if flow in left:
            left.remove(flow)
            found += 1
    return found, len(reference)


@dataclass(frozen=True)
class _DataFlowWalk:
    tokens: Mapping[_Span, tuple[int, str]]
    """Number and text of each token, by its position in the code."""
    loops: int = 0
    """Number of loops around the visited node."""

    @classmethod
    def of(cls, root: Node, code: str) -> _DataFlowWalk:
        lines = code.split("\n")
        return cls({span: (number, _text(span, lines)) for number, span in enumerate(_leaves(root))})

    def visit(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        """Return the edges of ``node``, and the origins of names after it."""
        if _is_leaf(node):
            return self._leaf(node, origins)
        return _VISITS.get(node.type, _DataFlowWalk._other)(self, node, origins)

    def _all(self, nodes: Iterable[Node], origins: _Origins) -> tuple[list[Edge], _Origins]:
        edges: list[Edge] = []
        for node in nodes:
            more, origins = self.visit(node, origins)
            edges += more
        return edges, origins

    def _leaf(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        number, text = self.tokens[_span(node)]
        if node.type == text:
            return [], origins
        if text in origins:
            return [Edge(text, number, COMES, (text,), origins[text])], origins
        if node.type == "identifier":
            origins = {**origins, text: (number,)}
        return [Edge(text, number, COMES)], origins

    def _default(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        name, value = (_field(node, field) for field in ("name", "value"))
        edges, origins = self.visit(value, origins)
        values = self._values(value)
        for number, text in self._values(name):
            edges += [Edge(text, number, COMES, (source,), (origin,)) for origin, source in values]
            origins = {**origins, text: (number,)}
        return _sorted(edges), origins

    def _assignment(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        if node.type == "for_in_clause":
            return self._assign([_field(node, "left")], [node.children[-1]], origins)
        if node.child_by_field_name("right") is None:
            return [], origins
        return self._assign(*_paired(_field(node, "left"), _field(node, "right")), origins)

    def _assign(self, left: Sequence[Node], right: Sequence[Node], origins: _Origins) -> tuple[list[Edge], _Origins]:
        edges, origins = self._all(right, origins)
        for target, value in zip(left, right, strict=False):
            values = self._values(value)
            sources, numbers = tuple(text for _, text in values), tuple(number for number, _ in values)
            for number, text in self._values(target):
                edges.append(Edge(text, number, COMPUTED, sources, numbers))
                origins = {**origins, text: (number,)}
        return _sorted(edges), origins

    def _branches(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        edges: list[Edge] = []
        ends: list[_Origins] = []
        here = origins
        for child in node.children:
            clause = child.type in ("elif_clause", "else_clause")
            more, after = self.visit(child, origins if clause else here)
            edges += more
            if clause:
                ends.append(after)
            else:
                here = after
        ends.append(here)
        if not any("else" in child.type for child in node.children):
            ends.append(origins)
        joined: dict[str, set[int]] = {}
        for end in ends:
            for name, numbers in end.items():
                joined.setdefault(name, set()).update(numbers)
        return _sorted(edges), {name: tuple(sorted(numbers)) for name, numbers in joined.items()}

    def _for(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        edges: list[Edge] = []
        for _ in range(self._rounds):
            more, origins = self._assign(*_paired(_field(node, "left"), _field(node, "right")), origins)
            edges += more
            if node.children[-1].type == "block":
                more, origins = self._inside().visit(node.children[-1], origins)
                edges += more
        return _merged(edges), origins

    def _while(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        edges, origins = self._inside()._all(node.children * self._rounds, origins)
        return _merged(edges), origins

    def _other(self, node: Node, origins: _Origins) -> tuple[list[Edge], _Origins]:
        # A comprehension's names are used before the ``for`` clause that assigns them.
        first = sorted(node.children, key=lambda child: child.type != "for_in_clause")
        edges, origins = self._all(first, origins)
        return _sorted(edges), origins

    @property
    def _rounds(self) -> int:
        return 2 if self.loops < MAX_LOOP_DEPTH else 1

    def _inside(self) -> _DataFlowWalk:
        return replace(self, loops=self.loops + 1)

    def _values(self, node: Node) -> list[tuple[int, str]]:
        """Return number and text of the tokens of ``node`` that are neither keywords nor operators."""
        if _is_leaf(node):
            number, text = self.tokens[_span(node)]
            return [] if node.type == text else [(number, text)]
        return [value for child in node.children for value in self._values(child)]


_VISITS = {
    "default_parameter": _DataFlowWalk._default,
    "assignment": _DataFlowWalk._assignment,
    "augmented_assignment": _DataFlowWalk._assignment,
    "for_in_clause": _DataFlowWalk._assignment,
    "if_statement": _DataFlowWalk._branches,
    "for_statement": _DataFlowWalk._for,
    "while_statement": _DataFlowWalk._while,
}
"""By the type of node; for all others ``_other`` visits the children."""


def _field(node: Node, name: str) -> Node:
    found = node.child_by_field_name(name)
    if found is None:
        raise _IncompleteStatement(f"{node.type} without {name}")
    return found


def _paired(left: Node, right: Node) -> tuple[list[Node], list[Node]]:
    """Return the elements of both sides if they have as many, else each side as a whole."""
    lefts, rights = ([child for child in side.children if child.type != ","] for side in (left, right))
    return (lefts, rights) if lefts and len(lefts) == len(rights) else ([left], [right])


def _is_leaf(node: Node) -> bool:
    return (not node.children or node.type == "string") and node.type != "comment"


def _leaves(node: Node) -> list[_Span]:
    return [_span(node)] if _is_leaf(node) else [span for child in node.children for span in _leaves(child)]


def _span(node: Node) -> _Span:
    return (node.start_point[0], node.start_point[1]), (node.end_point[0], node.end_point[1])


def _text(span: _Span, lines: Sequence[str]) -> str:
    """Return the text of a span; as in the package, columns in bytes are used as characters (wrong beyond ASCII)."""
    (first, start), (last, end) = span
    if first == last:
        return lines[first][start:end]
    return "".join((lines[first][start:], *lines[first + 1 : last], lines[last][:end]))


def _sorted(edges: Iterable[Edge]) -> list[Edge]:
    return sorted(edges, key=lambda edge: edge.token)


def _merged(edges: Iterable[Edge]) -> list[Edge]:
    """Return one edge per token, name and relation, with all sources, whose order is undefined in the package."""
    found: dict[tuple[str, int, str], Edge] = {}
    for edge in edges:
        key = (edge.name, edge.token, edge.relation)
        found[key] = _joined(found[key], edge, sort=True) if key in found else edge
    return _sorted(found.values())


def _joined(first: Edge, second: Edge, *, sort: bool = False) -> Edge:
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    origins = dict.fromkeys(first.origins + second.origins)
    return replace(second, sources=sources, origins=tuple(sorted(origins) if sort else origins))


def _connected(edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges of tokens that come from another token or that another token comes from."""
    tokens = {edge.token for edge in edges if edge.origins} | {each for edge in edges for each in edge.origins}
    return [edge for edge in edges if edge.token in tokens]


def _by_token(edges: Iterable[Edge]) -> list[Edge]:
    found: dict[int, Edge] = {}
    for edge in edges:
        known = found.get(edge.token)
        found[edge.token] = edge if known is None else _joined(known, edge)
    return list(found.values())


def _numbered(edges: Iterable[Edge]) -> list[Flow]:
    numbers: dict[str, str] = {}
    flows = []
    for edge in edges:
        for name in (*edge.sources, edge.name):
            numbers.setdefault(name, f"var_{len(numbers)}")
        flows.append((numbers[edge.name], edge.relation, tuple(numbers[name] for name in edge.sources)))
    return flows
