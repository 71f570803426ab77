"""What can be said about a leaf: findings with a stable code, a true place and a cure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feldspar.taxonomy.codes import CODES, Severity
from feldspar.text import on_one_line, printable

MAX_FINDINGS = 100
"""Warnings and notes told of one file; errors are always told."""


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

    def __str__(self) -> str:
        """`path:line:column: message; cure`, on one printable line."""
        return on_one_line(f"{self.place}: {self.message}; {self.cure}")

    @property
    def place(self) -> str:
        """`path:line:column`, printable."""
        place = on_one_line(str(self.path))
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


def quoted(text: str, limit: int = 40) -> str:
    """A piece of hostile text on one line, shortened, between backquotes."""
    line = " ".join(printable(text[: 4 * limit]).split())
    return f"`{line}`" if len(line) <= limit else f"`{line[: limit - 1]}\N{HORIZONTAL ELLIPSIS}`"
