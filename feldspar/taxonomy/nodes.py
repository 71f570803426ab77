"""YAML as nodes with places, built from parse events so that hostile files cannot hurt.

No value is constructed: a scalar stays the text that was written, so `answer: 1e5` and `answer: no`
are read as their authors meant them. Depth, aliases and size have limits. Lines end at line feeds,
as YAML 1.2 and every editor have it: U+0085, U+2028 and U+2029 are characters of a text. Merge keys
(`<<: *name`) are merged.
"""

from __future__ import annotations

import re
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
_MERGE_KEY = "<<"
_COMMENT = re.compile(r"[ \t]+#")
_OTHER_LINE_ENDS = "\x85\u2028\u2029"
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class TextNode:
    at: At
    text: str
    is_null: bool = False
    comment_at: At | None = None
    """Where ` #` begins a comment right after a text without quotes."""


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
    text, line_ends = _with_plain_line_ends(text)
    builder = _Builder(text, line_ends)
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
    text, _ = _with_plain_line_ends(text)
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


def lines_inside_quotes(text: str) -> frozenset[int]:
    """As `block_lines`, with the lines on which a text between quotes goes on."""
    lines = set(block_lines(text))
    text, _ = _with_plain_line_ends(text)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.ScalarEvent) and event.style in ("'", '"'):
                lines |= set(range(_at(event.start_mark)[0] + 1, _at(event.end_mark)[0] + 1))
    except yaml.YAMLError:
        return frozenset(lines)
    return frozenset(lines)


def _with_plain_line_ends(text: str) -> tuple[str, dict[int, str]]:
    """The text with a character of no meaning for each that YAML 1.1 alone ends a line at, and what
    turns it back. libyaml would end a text and shift every later line at them."""
    present = [c for c in _OTHER_LINE_ENDS if c in text]
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
    stand_ins = dict(zip(present, free, strict=False))
    replaced = text.translate({ord(c): stand_in for c, stand_in in stand_ins.items()})
    return replaced, {ord(stand_in): c for c, stand_in in stand_ins.items()}


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

    def __init__(self, text: str, line_ends: dict[int, str]) -> None:
        self._lines = text.split("\n")
        self._line_ends = line_ends
        self.root: Node | None = None
        self.is_done = False
        self._open: list[ListNode | MapNode] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._num_aliases = 0
        self._num_nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._place(event, self._text_node(event))
        elif isinstance(event, yaml.AliasEvent):
            self._place(event, self._aliased(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._enter(event, ListNode(_at(event.start_mark)))
        elif isinstance(event, yaml.MappingStartEvent):
            self._enter(event, MapNode(_at(event.start_mark)))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            self._keys.pop()
            if isinstance(closed, MapNode):
                self._merge(closed)
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
        self._count(node)
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

    def _count(self, node: Node) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            message = f"more than {MAX_NODES} keys and values"
            raise YamlFault("FT003", message, "split the leaf", node.at)

    def _merge(self, node: MapNode) -> None:
        """Put the entries of `<<: *name` in its place; keys that stand in the mapping itself, and
        those of a mapping named earlier, count more."""
        sources = [source for entry in node.entries for source in _merged_maps(entry)]
        if not sources:
            return
        own = [entry for entry in node.entries if not _merged_maps(entry)]
        taken = {key.text for key, _ in own if isinstance(key, TextNode)}
        for entry in (entry for source in sources for entry in source.entries):
            key, value = entry
            self._count(value)
            if isinstance(key, TextNode) and key.text not in taken:
                taken.add(key.text)
                own.append(entry)
        node.entries[:] = own

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

    def _text_node(self, event: yaml.ScalarEvent) -> TextNode:
        is_plain = event.style is None or event.style == ""
        is_null = event.tag == _NULL_TAG or (
            is_plain and event.tag is None and event.value in ("", "~", "null", "Null", "NULL")
        )
        # A lone surrogate, from an escape such as \ud800, could not be written out again.
        text = event.value.encode("utf-8", "replace").decode("utf-8").translate(self._line_ends)
        comment_at = self._comment_after(event) if is_plain and text else None
        return TextNode(_at(event.start_mark), text, is_null, comment_at)

    def _comment_after(self, event: yaml.ScalarEvent) -> At | None:
        line, column = _at(event.end_mark)
        whole = self._lines[line - 1] if line <= len(self._lines) else ""
        comment = _COMMENT.match(whole, column - 1)
        return (line, comment.end()) if comment is not None else None


def _merged_maps(entry: tuple[Node, Node]) -> list[MapNode]:
    """The mappings that a merge key names, one or a list; none of any other entry."""
    key, value = entry
    if not isinstance(key, TextNode) or key.text != _MERGE_KEY:
        return []
    named = value.items if isinstance(value, ListNode) else [value]
    maps = [node for node in named if isinstance(node, MapNode)]
    return maps if len(maps) == len(named) else []


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
