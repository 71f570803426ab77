"""Mend what needs no judgment: invisible characters and tabs in indentation, unquoted globs,
trailing blanks, the version.

A file that could be read before says the same afterwards, but for its version; otherwise it is
left as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from feldspar.files import whole_file
from feldspar.taxonomy.documents.find import QNA
from feldspar.taxonomy.findings import Findings
from feldspar.taxonomy.invisible import in_structure, without_invisible
from feldspar.taxonomy.nodes import (
    MAX_FILE_BYTES,
    At,
    ListNode,
    MapNode,
    Node,
    TextNode,
    YamlFault,
    block_lines,
    compose,
    lines_inside_quotes,
)
from feldspar.taxonomy.places import find_places
from feldspar.taxonomy.qna import KEYS, read_qna
from feldspar.taxonomy.text_files import ReadFault, is_inside, read_text

MAX_GLOBS = 20
_INDENTATION = re.compile(r"[ \t]*")
_GLOB = re.compile(r"""\*[^\s,\]\[{}'"#]*(?=[ \t]*(?:[,\]]|[ \t]#|\r?$))""", re.MULTILINE)
_TRAILING = re.compile(r"[ \t]+$")


class Mended(NamedTuple):
    line: int
    what: str


def mend_files(root: Path) -> Iterator[tuple[Path, Mended]]:
    """Mend every qna.yaml under `root` in place, and tell what was done."""
    folder = root if root.is_dir() else root.parent
    for place in find_places(root):
        if place.file.name != QNA or place.file.is_symlink() or not is_inside(place.file, folder):
            continue
        try:
            text = read_text(place.file, MAX_FILE_BYTES)
        except ReadFault:
            continue
        raw = place.file.read_bytes()
        if raw.decode("utf-8", "replace") != text:
            # Another encoding, or a mark before the text: writing it back would change more.
            continue
        mended, done = mend_text(text)
        if done:
            _write(place.file, mended)
        for change in done:
            yield place.file, change


def mend_text(text: str) -> tuple[str, list[Mended]]:
    """The text with every mechanical mistake mended, and what was mended."""
    done: list[Mended] = []
    before = None
    # One mend may make room for another: a glob that a tab hid can be quoted when the tab is gone.
    while text != before:
        before = text
        for mend in (
            _without_unseen,
            _without_tabs,
            _with_quoted_globs,
            _without_trailing,
            _with_version,
        ):
            candidate, changes = mend(text)
            if changes and _is_safe(text, candidate, mend):
                text = candidate
                done += changes
    return text, sorted(done)


_Mend = Callable[[str], tuple[str, list[Mended]]]


def _is_safe(before: str, after: str, mend: _Mend) -> bool:
    """Whether what could be read says the same, and what could not is read further than before."""
    old, new = _composed(before), _composed(after)
    if isinstance(old, YamlFault):
        return not isinstance(new, YamlFault) or new.at > old.at
    if isinstance(new, YamlFault):
        return False
    if mend is _without_unseen:
        # It makes keys readable, so there may be more seeds; none may go.
        return _seed_ids(old) <= _seed_ids(new)
    return mend is _with_version or _content(old) == _content(new)


def _seed_ids(root: Node | None) -> set[str]:
    qna = read_qna(root, Findings(Path()))
    return {seed.id for seed in qna.seeds} if qna is not None else set()


def _composed(text: str) -> Node | YamlFault | None:
    try:
        return compose(text).root
    except YamlFault as fault:
        return fault


def _content(node: Node | None) -> object:
    """A node without its places."""
    if isinstance(node, ListNode):
        return [_content(item) for item in node.items]
    if isinstance(node, MapNode):
        return [(_content(key), _content(value)) for key, value in node.entries]
    return (node.text, node.is_null) if isinstance(node, TextNode) else None


def _without_unseen(text: str) -> tuple[str, list[Mended]]:
    """Plain spaces in the indentation and around keys, nothing for what has no width."""
    found = {i.at[0]: i.name for i in in_structure(text, lines_inside_quotes(text), KEYS)}
    fault = _composed(text)
    last = fault.at[0] if isinstance(fault, YamlFault) else math.inf
    lines = text.split("\n")
    changes = []
    for number, name in found.items():
        # Behind a fault nobody knows which lines are text.
        if number <= last:
            lines[number - 1] = without_invisible(lines[number - 1])
            changes.append(Mended(number, f"{name} before a value is gone or a space"))
    return "\n".join(lines), changes


def _without_tabs(text: str) -> tuple[str, list[Mended]]:
    """Two spaces for each tab before a key or an item; texts after `|` keep theirs if they can."""
    changes = []
    lines = text.split("\n")
    kept = block_lines(text)
    for number, line in enumerate(lines, start=1):
        found = _INDENTATION.match(line)
        assert found is not None
        if "\t" in found.group() and number not in kept:
            lines[number - 1] = found.group().replace("\t", "  ") + line[found.end() :]
            changes.append(Mended(number, "a tab in the indentation became two spaces"))
    return "\n".join(lines), changes


def _with_quoted_globs(text: str) -> tuple[str, list[Mended]]:
    changes: list[Mended] = []
    while len(changes) < MAX_GLOBS:
        fault = _composed(text)
        start = _offset(text, fault.at) if isinstance(fault, YamlFault) else -1
        glob = _GLOB.match(text, start) if start >= 0 else None
        if glob is None:
            break
        assert isinstance(fault, YamlFault)
        text = f'{text[:start]}"{glob.group()}"{text[glob.end() :]}'
        changes.append(Mended(fault.at[0], f"{glob.group()} is between quotes"))
    return text, changes


def _without_trailing(text: str) -> tuple[str, list[Mended]]:
    kept = block_lines(text)
    lines = text.split("\n")
    changes = []
    for number, line in enumerate(lines, start=1):
        ending = "\r" if line.endswith("\r") else ""
        bare = _TRAILING.sub("", line.removesuffix("\r")) + ending
        if bare != line and number not in kept:
            lines[number - 1] = bare
            changes.append(Mended(number, "blanks at the end of the line are gone"))
    return "\n".join(lines), changes


def _with_version(text: str) -> tuple[str, list[Mended]]:
    root = _composed(text)
    if not isinstance(root, MapNode):
        return text, []
    findings = Findings(Path())
    qna = read_qna(root, findings)
    at = next(((f.line, f.column) for f in findings if f.code == "FT007"), None)
    start = _offset(text, at) if at is not None else -1
    written = re.compile(r"[^\s#\[\]{},]+").match(text, start) if start >= 0 else None
    if qna is None or written is None or at is None:
        return text, []
    mended = f"{text[:start]}{qna.version}{text[written.end() :]}"
    return mended, [Mended(at[0], f"version {written.group()} became {qna.version}")]


def _offset(text: str, at: At) -> int:
    """Where a line and a column are in a text; -1 where they are not in it."""
    line, column = at
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
        if start == 0:
            return -1
    return start + column - 1 if start + column - 1 < len(text) else -1


def _write(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777
    with whole_file(path, is_shared=True) as beside:
        beside.write_bytes(text.encode("utf-8"))
        beside.chmod(mode)
