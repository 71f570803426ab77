"""Findings in forms that other tools read: SARIF 2.1.0, and GitHub's workflow commands."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from feldspar.taxonomy.codes import CODES
from feldspar.taxonomy.findings import Finding
from feldspar.text import printable

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_GITHUB_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def sarif(findings: Sequence[Finding]) -> dict[str, object]:
    """A SARIF log with one run; its rules are the codes that were found."""
    codes = sorted({finding.code for finding in findings})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CODES[code].meaning},
            "fullDescription": {"text": CODES[code].why},
            "defaultConfiguration": {"level": CODES[code].severity},
        }
        for code in codes
    ]
    driver = {"name": "feldspar taxonomy check", "rules": rules}
    results = [_result(finding, codes.index(finding.code)) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, rule_index: int) -> dict[str, object]:
    uri = quote(finding.path.as_posix(), errors="surrogateescape")
    if finding.path.is_absolute():
        uri = f"file://{uri}"
    place: dict[str, object] = {"artifactLocation": {"uri": uri}}
    if finding.line:
        place["region"] = {"startLine": finding.line, "startColumn": finding.column}
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": finding.severity,
        "message": {"text": printable(f"{finding.message}; {finding.cure}")},
        "locations": [{"physicalLocation": place}],
    }


def github_command(finding: Finding) -> str:
    """`::error file=...,line=3,col=5,title=FT002::message`, which GitHub shows beside the line."""
    place = f"file={_property(str(finding.path))}"
    if finding.line:
        place += f",line={finding.line},col={finding.column}"
    message = _escaped(printable(f"{finding.message}; {finding.cure}"))
    return f"::{_GITHUB_LEVELS[finding.severity]} {place},title={finding.code}::{message}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(printable(text)).replace(":", "%3A").replace(",", "%2C")
