"""YAML as people write it: merge keys, comments inside texts, and characters that nobody sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from feldspar.records import Leaf
from feldspar.taxonomy import Finding, inspect_taxonomy, mend_text

HEAD = "task_description: Answer.\nseed_examples:\n"


def read(folder: Path, text: str) -> tuple[Leaf | None, dict[str, Finding]]:
    leaf = folder / "compositional_skills" / "leaf"
    leaf.mkdir(parents=True, exist_ok=True)
    (leaf / "qna.yaml").write_bytes(text.encode("utf-8"))
    (leaf_file,) = inspect_taxonomy(folder)
    return leaf_file.leaf, {finding.code: finding for finding in leaf_file.findings}


def test_seeds_share_a_context_by_a_merge_key(tmp_path: Path) -> None:
    text = f"""{HEAD}
- &a
  context: At noon.
  question: When?
  answer: Noon.
- <<: *a
  question: At what time?
- <<: [{{answer: First.}}, *a]
  question: Which?
"""
    leaf, findings = read(tmp_path, text)
    assert leaf is not None
    assert [(s.question, s.answer, s.context) for s in leaf.seeds] == [
        ("When?", "Noon.", "At noon."),
        ("At what time?", "Noon.", "At noon."),
        ("Which?", "First.", "At noon."),
    ]
    assert findings.keys() == {"FT023"}


def test_a_merge_key_that_names_no_mapping_is_told(tmp_path: Path) -> None:
    _, findings = read(tmp_path, f"{HEAD}- {{question: q, answer: a, <<: x}}\n")
    assert "`<<`" in findings["FT008"].message


def test_merging_again_and_again_has_a_limit(tmp_path: Path) -> None:
    keys = ", ".join(f"k{i}: v" for i in range(2000))
    merges = "".join(f"x{i}: {{<<: *a}}\n" for i in range(190))
    _, findings = read(tmp_path, f"a: &a {{{keys}}}\n{merges}")
    assert "FT003" in findings


def test_a_comment_inside_an_answer_is_told(tmp_path: Path) -> None:
    leaf, findings = read(
        tmp_path, f"version: 3 # newest\n{HEAD}- question: q\n  answer: see #12\n"
    )
    assert leaf is not None
    assert leaf.seeds[0].answer == "see"
    assert (findings["FT027"].line, findings["FT027"].column) == (5, 15)


@pytest.mark.parametrize("answer", ["'see #12'", '"see #12"', "|\n    see #12", "see#12"])
def test_a_hash_that_is_no_comment_is_not_told(tmp_path: Path, answer: str) -> None:
    leaf, findings = read(tmp_path, f"{HEAD}- question: q\n  answer: {answer}\n")
    assert leaf is not None
    assert leaf.seeds[0].answer.endswith("#12")
    assert "FT027" not in findings


@pytest.mark.parametrize(
    ("line", "at", "name"),
    [
        ("\u00a0 answer: a", (4, 1), "no-break space (U+00A0)"),
        ("  answer:\u00a0a", (4, 10), "no-break space (U+00A0)"),
        ("  \u200banswer: a", (4, 3), "zero width space (U+200B)"),
        ("  ans\u2060wer: a", (4, 6), "word joiner (U+2060)"),
        ("  \ufeffanswer: a", (4, 3), "zero width no-break space (U+FEFF)"),
    ],
)
def test_a_character_that_only_looks_like_a_space_is_named_and_mended(
    tmp_path: Path, line: str, at: tuple[int, int], name: str
) -> None:
    text = f"{HEAD}- question: q\n{line}\n"
    _, findings = read(tmp_path, text)
    found = next(f for f in findings.values() if name in f.message)
    assert (found.line, found.column) == at
    assert "--fix" in found.cure
    assert "FT008" not in findings
    leaf, findings = read(tmp_path, mend_text(text)[0])
    assert leaf is not None
    assert (leaf.seeds[0].question, leaf.seeds[0].answer) == ("q", "a")
    assert "FT028" not in findings


def test_invisible_characters_in_a_text_are_named_and_kept(tmp_path: Path) -> None:
    text = f"{HEAD}- question: |\n    Nom\u00a0: 10\u202f%\n    m\u00a0: x\n  answer: a\u202eb\n"
    leaf, findings = read(tmp_path, text)
    assert leaf is not None
    assert leaf.seeds[0].question == "Nom\u00a0: 10\u202f%\nm\u00a0: x"
    assert findings["FT028"].severity in ("warning", "note")
    assert mend_text(text) == (text, [])
    for emoji_or_script in (
        "\U0001f469\u200d\U0001f52c",
        "\u0645\u06cc\u200c\u062e",
        "\u5b57\u3000",
    ):
        _, findings = read(tmp_path, f"{HEAD}- question: q\n  answer: {emoji_or_script}x\n")
        assert "FT028" not in findings


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_line_ends_of_other_systems_shift_no_line_and_cut_no_text(tmp_path: Path, end: str) -> None:
    leaf, findings = read(tmp_path, f"{HEAD}- question: one{end}two\n  answer: a #b\n- x\n")
    assert leaf is not None
    assert leaf.seeds[0].question == f"one{end}two"
    assert (findings["FT027"].line, findings["FT021"].line) == (4, 5)
    _, findings = read(tmp_path, f"{HEAD}- question: 'one{end}two'\n  answer: b: c\n")
    assert (findings["FT002"].line, findings["FT002"].column) == (4, 12)
