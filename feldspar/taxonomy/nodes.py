"""YAML as nodes with places, built from parse events so that hostile files cannot hurt.

No value is constructed: a scalar stays the text that was written, so `answer: 1e5` and `answer: no`
are read as their authors meant them. Depth, aliases and size have limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import yaml

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_ALIASES = 200
MAX_NODES = 100_000

At = tuple[int, int]
"""Line and column, counted from 1."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL_TAG = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class TextNode:
    at: At
    text: str
    is_null: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    at: At
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapNode:
    at: At
    entries: list[tuple[Node, Node]] = field(default_factory=list)


Node: TypeAlias = TextNode | ListNode | MapNode


class YamlFault(Exception):
    """Why a file could not be composed."""

    def __init__(self, code: str, message: str, cure: str, at: At) -> None:
        super().__init__(message)
        self.code, self.message, self.cure, self.at = code, message, cure, at


@dataclass(frozen=True, slots=True)
class Composed:
    """The first document of a file, and where a second one begins, if one does."""

    root: Node | None
    second_at: At | None = None


def compose(text: str) -> Composed:
    """Build the nodes of a file's first document. Raises YamlFault."""
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.DocumentStartEvent) and builder.is_done:
                return Composed(builder.root, _at(event.start_mark))
            builder.take(event)
    except yaml.YAMLError as error:
        if builder.is_done:
            mark = getattr(error, "problem_mark", None)
            return Composed(builder.root, _at(mark) if mark else (1, 1))
        raise _explained(error, text) from error
    return Composed(builder.root)


def block_lines(text: str) -> frozenset[int]:
    """The lines that texts after `|` or `>` take up, as far as the file can be read."""
    lines: set[int] = set()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">"):
                assert event.start_mark is not None
                assert event.end_mark is not None
                lines |= set(range(event.start_mark.line + 2, event.end_mark.line + 1))
    except yaml.YAMLError:
        # What was read up to the fault counts.
        return frozenset(lines)
    return frozenset(lines)


class _Mark(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def _at(mark: _Mark | None) -> At:
    assert mark is not None
    return mark.line + 1, mark.column + 1


class _Builder:
    """Turns events into nodes without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.is_done = False
        self._open: list[ListNode | MapNode] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._num_aliases = 0
        self._num_nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._place(event, _text_node(event))
        elif isinstance(event, yaml.AliasEvent):
            self._place(event, self._aliased(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._enter(event, ListNode(_at(event.start_mark)))
        elif isinstance(event, yaml.MappingStartEvent):
            self._enter(event, MapNode(_at(event.start_mark)))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.DocumentEndEvent):
            self.is_done = True

    def _enter(self, event: yaml.NodeEvent, node: ListNode | MapNode) -> None:
        if len(self._open) == MAX_DEPTH:
            raise YamlFault(
                "FT003",
                f"values are nested more than {MAX_DEPTH} deep",
                "a leaf needs five levels; put brackets that are text between quotes",
                node.at,
            )
        self._place(event, node)
        self._open.append(node)
        self._keys.append(None)

    def _place(self, event: yaml.NodeEvent, node: Node) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            message = f"more than {MAX_NODES} keys and values"
            raise YamlFault("FT003", message, "split the leaf", node.at)
        anchor = event.anchor
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
        elif self._keys[-1] is None:
            self._keys[-1] = node
        else:
            parent.entries.append((self._keys[-1], node))
            self._keys[-1] = None

    def _aliased(self, event: yaml.AliasEvent) -> Node:
        at = _at(event.start_mark)
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise YamlFault(
                "FT002",
                "an alias (`*name`) without an anchor (`&name`) before it",
                "put a text that begins with `*` between quotes, or after `|`",
                at,
            )
        self._num_aliases += 1
        if self._num_aliases > MAX_ALIASES or any(node is parent for parent in self._open):
            raise YamlFault(
                "FT003",
                f"an alias to itself, or more than {MAX_ALIASES} aliases",
                "write the values out",
                at,
            )
        return node


def _text_node(event: yaml.ScalarEvent) -> TextNode:
    is_plain = event.style is None or event.style == ""
    is_null = event.tag == _NULL_TAG or (
        is_plain and event.tag is None and event.value in ("", "~", "null", "Null", "NULL")
    )
    # A lone surrogate, from an escape such as \ud800, could not be written out again.
    text = event.value.encode("utf-8", "replace").decode("utf-8")
    return TextNode(_at(event.start_mark), text, is_null)


_EXPLAINED: tuple[tuple[str, str, str], ...] = (
    (
        "expected comment or line break",
        "text stands on the same line as `|` or `>`",
        "begin the text on the next line, indented by two more spaces",
    ),
    (
        "could not find expected ':'",
        "this line is read as a key, but no `:` follows",
        "if it is text, indent it more than the key above, after `|`; if a key, add `:`",
    ),
    (
        "mapping values are not allowed",
        "`: ` inside a text that has no quotes",
        "put the text between quotes, or on the next line after `|`",
    ),
    (
        "found unexpected end of stream",
        "a quote opens here and never closes",
        "close it, or write the text on the next line after `|`",
    ),
    (
        "did not find expected key",
        "this line is neither a key nor a continuation of the text before",
        "indent keys alike, and write a text with quotes or line breaks after `|`",
    ),
    (
        "did not find expected '-' indicator",
        "a line between the items of a list that is no item",
        "begin each item with `-` in the same column",
    ),
    (
        "did not find expected alphabetic or numeric character",
        "a text that begins with `*` or `&`, which YAML reads as an alias or an anchor",
        "put it between quotes",
    ),
    (
        "unknown escape character",
        "a backslash between double quotes that YAML does not know",
        "use single quotes, or write the text on the next line after `|`",
    ),
    (
        "cannot start any token",
        "a tab, or one of the signs @ ` %, where a value begins",
        "indent with spaces; put a text that begins with such a sign between quotes",
    ),
    (
        "tab character that violates indentation",
        "a tab in the indentation",
        "indent with spaces",
    ),
    (
        "control characters are not allowed",
        "a control character",
        "delete it; copying from PDF or a terminal often leaves some",
    ),
)
_CAUSE_IS_THE_CONTEXT = (
    "could not find expected ':'",
    "found unexpected end of stream",
    "did not find expected alphabetic or numeric character",
)


def _explained(error: yaml.YAMLError, text: str) -> YamlFault:
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    mark = getattr(error, "problem_mark", None)
    if any(cause in problem for cause in _CAUSE_IS_THE_CONTEXT):
        mark = getattr(error, "context_mark", None) or mark
    at = _at(mark) if mark is not None else _at_byte(text, getattr(error, "position", 0))
    for sign, message, cure in _EXPLAINED:
        if sign in problem:
            return YamlFault("FT002", message, cure, at)
    return YamlFault(
        "FT002",
        f"not YAML: {problem.splitlines()[0]}",
        "look at the indentation and quotes of this line and the one before",
        at,
    )


def _at_byte(text: str, position: int) -> At:
    """The place of a byte: the reader counts in UTF-8."""
    before = text.encode("utf-8")[:position].decode("utf-8", "ignore")
    return before.count("\n") + 1, len(before) - before.rfind("\n")
