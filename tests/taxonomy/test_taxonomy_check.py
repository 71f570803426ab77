"""Findings: true places, cures, and no traceback on any bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feldspar.taxonomy import CODES, Finding, check_taxonomy, inspect_taxonomy
from feldspar.taxonomy.findings import MAX_FINDINGS

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "taxonomy"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real taxonomies in {SHARED}")
DOCS = Path(__file__).parents[2] / "docs" / "taxonomy.md"


def findings_of(
    folder: Path, content: bytes, branch: str = "compositional_skills"
) -> list[Finding]:
    leaf = folder / branch / "leaf"
    leaf.mkdir(parents=True, exist_ok=True)
    (leaf / "qna.yaml").write_bytes(content)
    return list(check_taxonomy(folder))


@pytest.mark.parametrize(
    ("content", "code", "line", "column"),
    [
        (b"created_by: me\nseed_examples:\n  - question: a: b\n", "FT002", 3, 16),
        (b"task_description: |x\n", "FT002", 1, 20),
        (b"a: 'never closed\n\nb: c\n", "FT002", 1, 4),
        (b"a: b\n\tc: d\n", "FT002", 2, 1),
        (b"a: \xc3\xa9\nb: \x07\n", "FT002", 2, 4),
        (b"a: *nowhere\n", "FT002", 1, 4),
        (b"a: &a [*a]\n", "FT003", 1, 8),
        (b"[" * 5000, "FT003", 1, 41),
        (b"- question: a\n", "FT004", 1, 1),
        (b"", "FT004", 1, 1),
        (b"null\n", "FT004", 1, 1),
        (b"created_by: a\nseed_examples: []\n", "FT020", 2, 16),
        (b"version: 9\n", "FT007", 1, 10),
        (b"version: [3]\n", "FT007", 1, 10),
        (b"seed_example: x\n", "FT008", 1, 1),
        (b"created_by: a\ncreated_by: b\n", "FT005", 2, 1),
        (b"a: b\n---\nc: d\n", "FT006", 2, 1),
        (b"task_description: [a]\n", "FT009", 1, 19),
        (b"seed_examples:\n- question: q\n  answer: {}\n", "FT021", 2, 3),
        (
            b"seed_examples:\n- {question: q, answer: a}\n- {question: q, answer: a}\n",
            "FT022",
            3,
            3,
        ),
    ],
)
def test_a_fault_is_found_at_its_place(
    tmp_path: Path, content: bytes, code: str, line: int, column: int
) -> None:
    found = {finding.code: finding for finding in findings_of(tmp_path, content)}
    assert code in found
    assert (found[code].line, found[code].column) == (line, column)
    assert found[code].cure


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, b"a: b\nc: \xff\n")
    assert (finding.code, "line 2" in finding.message) == ("FT001", True)


def test_a_near_key_is_suggested(tmp_path: Path) -> None:
    content = b"seed_examples:\n- {quesiton: q, answer: a}\n"
    cures = [finding.cure for finding in findings_of(tmp_path, content)]
    assert "did you mean `question`?" in cures


def test_grounded_and_ungrounded_seeds_in_one_skill_are_told(tmp_path: Path) -> None:
    content = (
        b"seed_examples:\n- {question: q, answer: a, context: c}\n- {question: r, answer: a}\n"
    )
    (finding,) = (f for f in findings_of(tmp_path, content) if f.code == "FT024")
    assert (finding.line, "line 2" in finding.message) == (3, True)


def test_knowledge_needs_a_document(tmp_path: Path) -> None:
    seeds = b"seed_examples: [{question: q, answer: a}]\n"
    for document, code in (
        (b"", "FT030"),
        (b"document: x\n", "FT031"),
        (b"document: {repo: https://a/b/c}\n", "FT031"),
        (b"document: {path: a, repo: b/c, commit: abcdefg}\n", "FT031"),
        (b"document: {url: 'https://example.org'}\n", "FT033"),
        (b"document: {url: 'https://example.org', path: x}\n", "FT031"),
        (b"document: {path: absent.md}\n", "FT032"),
        (b'document: {path: "\\0"}\n', "FT032"),
        (b"document: {path: .}\n", "FT034"),
    ):
        codes = [f.code for f in findings_of(tmp_path, seeds + document, "knowledge")]
        assert code in codes, document


def test_odd_places_are_told(tmp_path: Path) -> None:
    seeds = b"seed_examples: [{question: q, answer: a}]\n"
    (tmp_path / "qna.yaml").write_bytes(seeds)
    outside = tmp_path.parent / f"{tmp_path.name}-outside.yaml"
    outside.write_bytes(seeds)
    for folder in ("link", "yml", "bad\x1bname"):
        (tmp_path / "foundational_skills" / folder).mkdir(parents=True)
    (tmp_path / "foundational_skills" / "link" / "qna.yaml").symlink_to(outside)
    (tmp_path / "foundational_skills" / "yml" / "qna.yml").write_bytes(seeds)
    (tmp_path / "foundational_skills" / "bad\x1bname" / "qna.yaml").write_bytes(seeds)
    found = list(check_taxonomy(tmp_path))
    assert {finding.code for finding in found} == {"FT010", "FT012", "FT013", "FT014"}
    assert not any("\x1b" in finding.place for finding in found)


@pytest.mark.parametrize(
    "content",
    [
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9))
            for i in range(20)
        ),
        b"- " * 400_000,
        b"{" + b"?a," * 300_000,
        b"seed_examples:\n" + b"- {x: y}\n" * 30_000,
        b"seed_examples: ["
        + b"&s {questions_and_answers: &q ["
        + b"{question: q, answer: a}," * 5000
        + b"]},"
        + b"*s," * 150
        + b"]",
        b"a: b\n" * 190_000,
        b"a: &q '"
        + b"What is Zorbo? " * 10_000
        + b"'\nseed_examples:\n"
        + b"".join(b"- {question: *q, answer: Zorbo %d}\n" % i for i in range(190)),
    ],
    ids=["bomb", "deep", "wide", "seeds", "aliases", "keys", "long"],
)
@pytest.mark.timeout(3, func_only=True)
def test_hostile_files_do_not_hang(tmp_path: Path, content: bytes) -> None:
    found = findings_of(tmp_path, content)
    assert 0 < len(found) <= MAX_FINDINGS + 5


GOOD = b"""\
version: 3
created_by: me
domain: stars
seed_examples:
  - context: |
      The Phoenix is a "minor" constellation: small.
    questions_and_answers:
      - question: What is it?
        answer: A constellation.
document:
  repo: https://github.com/some/docs
  commit: 0a1f2672b9b9
  patterns: ['*.md']
"""
PIECES = [
    b"\t",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"[",
    b"{",
    b"|",
    b"\xff",
    b"\x00",
    b"'",
    b'"',
    b"---\n",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        content[at : at + length] = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
    return bytes(content)


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=mutated() | st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_a_traceback(tmp_path: Path, content: bytes) -> None:
    for branch in ("knowledge", "compositional_skills"):
        for finding in findings_of(tmp_path / branch, content, branch):
            assert finding.code in CODES
            assert finding.cure
            assert finding.line <= content.count(b"\n") + content.count(b"\r") + 2


@needs_shared
def test_every_malformed_file_gets_a_place_and_a_cure() -> None:
    read = list(inspect_taxonomy(SHARED / "malformed"))
    assert len(read) == 19
    for leaf_file in read:
        assert leaf_file.errors
        assert all(f.line > 0 and f.column > 0 and f.cure for f in leaf_file.errors)


@needs_shared
def test_real_leaves_with_one_byte_changed_never_crash(tmp_path: Path) -> None:
    rng = random.Random(1)
    files = sorted(SHARED.glob("main-2024-07-03/**/qna.yaml"))
    for file in rng.sample(files, 40):
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] = rng.randrange(256)
        findings_of(tmp_path, bytes(content))


@needs_shared
@pytest.mark.timeout(2, func_only=True)
def test_every_leaf_of_the_whole_tree_is_read() -> None:
    read = list(inspect_taxonomy(SHARED / "main-2024-07-03"))
    assert sum(leaf_file.leaf is not None for leaf_file in read) == 148
    assert not any(leaf_file.errors for leaf_file in read)


@needs_shared
@pytest.mark.parametrize(
    ("name", "num_files", "num_read", "num_errors"),
    [
        ("main-2025-04-25", 16, 16, 0),
        ("main-2024-07-03", 148, 148, 0),
        ("pr-skills", 120, 120, 0),
        ("pr-knowledge-no-docs", 28, 28, 4),
        ("knowledge-with-docs/leaves", 21, 21, 0),
        ("malformed", 19, 0, 19),
    ],
)
def test_every_real_tree_reads_or_says_why_with_a_true_line(
    name: str, num_files: int, num_read: int, num_errors: int
) -> None:
    read = list(inspect_taxonomy(SHARED / name))
    assert (len(read), sum(leaf.leaf is not None for leaf in read)) == (num_files, num_read)
    findings = [finding for leaf in read for finding in leaf.findings]
    assert sum(finding.severity == "error" for finding in findings) == num_errors
    for finding in findings:
        lines = finding.path.read_text(encoding="utf-8").split("\n")
        assert finding.line <= len(lines)
        assert finding.line == 0 or finding.column <= len(lines[finding.line - 1]) + 1


@pytest.mark.slow
@needs_shared
def test_findings_of_seeds_stand_where_the_seed_does() -> None:
    for name in ("main-2024-07-03", "pr-skills", "pr-knowledge-no-docs"):
        for finding in check_taxonomy(SHARED / name):
            lines = finding.path.read_text(encoding="utf-8").split("\n")
            key = {"FT040": "answer:", "FT042": "answer:", "FT026": "question:"}.get(finding.code)
            if key is not None:
                assert key in lines[finding.line - 1], finding


def test_every_code_is_documented() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for code, (severity, meaning, _) in CODES.items():
        assert f"| {code} | {severity} | {meaning} |" in page
