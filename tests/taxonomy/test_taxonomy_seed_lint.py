"""What seeds, contexts and licences give cause to say, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from feldspar.taxonomy import Finding, check_taxonomy

CONTEXT = "The Phoenix is a minor constellation in the southern sky, named after a mythical bird."
GOOD = f"""\
version: 3
created_by: someone
domain: astronomy
seed_examples:
  - context: {CONTEXT}
    questions_and_answers:
      - question: What is the Phoenix?
        answer: A minor constellation in the southern sky.
      - question: What is the Phoenix named after?
        answer: A mythical bird.
document: {{path: .}}
"""


def found(folder: Path, text: str, licence: str = "CC-BY-4.0") -> dict[str, Finding]:
    leaf = folder / "knowledge" / "phoenix"
    leaf.mkdir(parents=True, exist_ok=True)
    (leaf / "qna.yaml").write_text(text, encoding="utf-8")
    (leaf / "phoenix.md").write_text(f"# Phoenix\n\n{CONTEXT.replace(' a ', chr(10) + 'a ')}\n")
    if licence:
        (leaf / "attribution.txt").write_text(f"License of the work: {licence}\n")
    return {f.code: f for f in check_taxonomy(folder) if f.code != "FT023"}


def test_a_good_leaf_gives_no_cause(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD) == {}


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "column"),
    [
        ("A mythical bird.", "Herodotus praised gold, myrrh and incense.", "FT040", 10, 17),
        (CONTEXT, "Stars were counted by Dutch sailors who went far to the south.", "FT041", 5, 14),
        ("A mythical bird.", "what is the Phoenix named after", "FT042", 10, 17),
        ("What is the Phoenix named after?", "What is the bright " + "star " * 600, "FT044", 9, 19),
        (CONTEXT, "The Phoenix is a minor constellation. " * 130, "FT044", 5, 14),
        (
            "What is the Phoenix named after?\n        answer: A mythical bird.",
            "What exactly is the Phoenix?\n"
            "        answer: A minor constellation in the southern sky",
            "FT026",
            9,
            19,
        ),
        (
            "What is the Phoenix named after?",
            "Was ist der Phönix, und wie ist das Sternbild mit dem Namen auch nicht bekannt?",
            "FT043",
            9,
            19,
        ),
    ],
)
def test_a_doubtful_seed_is_told_at_its_place(
    tmp_path: Path, old: str, new: str, code: str, line: int, column: int
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if code == "FT043":
        text = text.replace("What is the Phoenix?", "What is the name of the stars that are there?")
    finding = found(tmp_path, text)[code]
    assert (finding.line, finding.column) == (line, column)


@pytest.mark.parametrize(
    ("licence", "is_accepted"),
    [
        *((name, True) for name in ("CC-BY-SA-4.0", "public domain", "Apache 2.0", "MIT", "CC0")),
        ("Creative Commons Attribution 4.0 International (CC BY 4.0)", True),
        *((name, False) for name in ("CC BY-NC-SA 4.0", "CC-BY-ND-4.0", "No license", "IBM")),
        *((name, False) for name in ("open source", "All rights reserved", "MITRE")),
    ],
)
def test_a_licence_is_on_the_list_or_not(tmp_path: Path, licence: str, is_accepted: bool) -> None:
    assert ("FT046" not in found(tmp_path, GOOD, licence)) == is_accepted


def test_a_leaf_without_attribution_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD, "")["FT045"].message == "the leaf names no attribution"


def test_paths_that_are_one_on_some_disks_are_an_error(tmp_path: Path) -> None:
    text = "seed_examples: [{question: q, answer: a}]\n"
    for name in ("Stars", "stars", "caf\u00e9", "cafe\u0301", "other"):
        leaf = tmp_path / "compositional_skills" / name
        leaf.mkdir(parents=True)
        (leaf / "qna.yaml").write_text(text)
    told = [f for f in check_taxonomy(tmp_path) if f.code == "FT015"]
    assert [f.path.parent.name for f in told] == ["caf\u00e9", "stars"]
    assert all(f.severity == "error" for f in told)
