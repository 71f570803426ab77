"""What can be said about a leaf: findings with a stable code, a true place and a cure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]


MAX_FINDINGS = 100
"""Warnings and notes told of one file; errors are always told."""


class Code(NamedTuple):
    """A kind of finding: how bad it is as a rule, and what it means."""

    severity: Severity
    meaning: str


CODES: dict[str, Code] = {
    "FT001": Code("error", "the file cannot be read: not UTF-8, not a plain file, or no right"),
    "FT002": Code("error", "not YAML"),
    "FT003": Code("error", "too large, too deep, or too many aliases"),
    "FT004": Code("error", "the file is not a mapping of keys to values"),
    "FT005": Code("warning", "a key stands twice; the last one counts"),
    "FT006": Code("warning", "a second YAML document in the file is ignored"),
    "FT007": Code("warning", "an unknown version, read as the nearest"),
    "FT008": Code("note", "an unknown key, ignored"),
    "FT009": Code("warning", "a list or mapping where a text is expected, ignored"),
    "FT010": Code("error", "the leaf lies under none of the three branch folders"),
    "FT011": Code("error", "two leaves have the same path"),
    "FT012": Code("warning", "the file's name is nearly qna.yaml, so it is not read"),
    "FT013": Code("error", "a link leads out of the taxonomy"),
    "FT014": Code("error", "the folder's name is not UTF-8"),
    "FT020": Code("error", "the leaf has no usable seed"),
    "FT021": Code("warning", "a seed without question or answer is skipped"),
    "FT022": Code("warning", "a seed that stands there twice is skipped"),
    "FT023": Code("note", "fewer than five seeds: none is held out as an exam"),
    "FT024": Code("warning", "some seeds of a skill have a context and some have none"),
    "FT025": Code("note", "a skill without task description"),
    "FT030": Code("error", "a knowledge leaf names no document"),
    "FT031": Code("error", "`document` does not say where the documents are"),
    "FT032": Code("error", "the folder of documents is not there"),
    "FT033": Code("warning", "documents in a git repository, and no mirror to look in"),
    "FT034": Code("error", "a pattern matches no document"),
    "FT035": Code("error", "a path or pattern leads out of its folder"),
    "FT036": Code("warning", "a document cannot be read and is left out"),
    "FT037": Code("error", "the documents hold no text"),
    "FT099": Code("note", f"more than {MAX_FINDINGS} findings in one file; the rest is left out"),
}
"""Every code, with the severity that it has as a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend: `line` and `column` count from 1; 0 where the whole file is meant."""

    code: str
    severity: Severity
    path: Path
    line: int = 0
    column: int = 0
    message: str
    cure: str

    @property
    def place(self) -> str:
        """`path:line:column`, printable."""
        place = printable(str(self.path))
        return f"{place}:{self.line}:{self.column}" if self.line else place


class Findings:
    """Collects the findings of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[Finding] = []
        self._is_cut = False

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def is_full(self) -> bool:
        """Whether warnings and notes are no longer taken."""
        return len(self._found) >= MAX_FINDINGS

    def add(
        self,
        code: str,
        message: str,
        cure: str,
        at: tuple[int, int] = (0, 0),
        severity: Severity | None = None,
    ) -> None:
        """Note a finding at (line, column); `severity` replaces the code's own."""
        severity = severity or CODES[code].severity
        if self.is_full and severity != "error":
            if self._is_cut:
                return
            self._is_cut = True
            code, severity, message = "FT099", "note", "more findings follow; they are left out"
            cure = "mend those above and check again"
        line, column = at
        self._found.append(
            Finding(
                code=code,
                severity=severity,
                path=self.path,
                line=line,
                column=column,
                message=message,
                cure=cure,
            )
        )


def printable(text: str) -> str:
    """The text without what could steer a terminal or cannot be encoded; keeps newline and tab."""
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def quoted(text: str, limit: int = 40) -> str:
    """A piece of hostile text on one line, shortened, between backquotes."""
    line = " ".join(printable(text[: 4 * limit]).split())
    return f"`{line}`" if len(line) <= limit else f"`{line[: limit - 1]}\N{HORIZONTAL ELLIPSIS}`"
