"""Leaves of every version and branch, their documents, and what stops a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feldspar.config import TaxonomyConfig
from feldspar.errors import TaxonomyError
from feldspar.records import Leaf
from feldspar.taxonomy import check_taxonomy, files_read, read_taxonomy

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "taxonomy"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real taxonomies in {SHARED}")

SKILL = """\
created_by: someone
task_description: Find rhymes.
seed_examples:
  - question: What rhymes with horn?
    answer: corn
  - question: What rhymes with cat?
    answer: 42
"""
KNOWLEDGE = """\
version: 3
created_by: someone
domain: astronomy
document_outline: A constellation.
seed_examples:
  - context: |
      The Phoenix is a minor constellation.
    questions_and_answers:
      - question: What is the Phoenix?
        answer: A minor constellation.
      - question: Is the Phoenix a major constellation?
        answer: no
document:
"""
COMMIT = "0a1f2672b9b9e2b1" * 2 + "0a1f2672"


def write_leaf(root: Path, path: str, text: str, attribution: str = "") -> Path:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qna.yaml").write_text(text, encoding="utf-8")
    if attribution:
        (folder / "attribution.txt").write_text(attribution, encoding="utf-8")
    return folder


def write_mirror(root: Path, commit: str = COMMIT[:12]) -> Path:
    folder = root / "mirror" / "Some+docs" / commit
    (folder / "more").mkdir(parents=True)
    (folder / "phoenix.md").write_text("# Phoenix\n\nA bird.\n", encoding="utf-8")
    (folder / "more" / "other.md").write_text("Other.\n", encoding="utf-8")
    return root / "mirror"


def git_document(patterns: str = "['*.md']", commit: str = COMMIT) -> str:
    lines = ("repo: https://github.com/some/docs.git", f"commit: {commit}", f"patterns: {patterns}")
    return KNOWLEDGE + "".join(f"  {line}\n" for line in lines)


def read(root: Path, **more: object) -> list[Leaf]:
    return list(read_taxonomy(TaxonomyConfig.model_validate({"path": str(root), **more})))


def codes(root: Path, mirror: Path | None = None) -> list[str]:
    return [finding.code for finding in check_taxonomy(root, mirror)]


def test_a_skill_is_read_as_its_author_wrote_it(tmp_path: Path) -> None:
    licence = "Title of work: Rhymes\nLicense of the work: CC-BY-4.0\n"
    write_leaf(tmp_path, "compositional_skills/writing/rhymes", SKILL, licence)
    (leaf,) = read(tmp_path)
    assert (leaf.path, leaf.branch) == ("compositional_skills/writing/rhymes", "compositional")
    assert [(seed.question, seed.answer, seed.line) for seed in leaf.seeds] == [
        ("What rhymes with horn?", "corn", 4),
        ("What rhymes with cat?", "42", 6),
    ]
    assert leaf.licence == "CC-BY-4.0"
    assert leaf.version == 1
    assert not leaf.is_grounded


def test_version_3_knowledge_keeps_its_context_on_each_seed(tmp_path: Path) -> None:
    write_leaf(tmp_path, "knowledge/stars/phoenix", git_document())
    (leaf,) = read(tmp_path, mirror=str(write_mirror(tmp_path)))
    assert {seed.context for seed in leaf.seeds} == {"The Phoenix is a minor constellation."}
    assert leaf.seeds[1].answer == "no"
    assert leaf.task_description == "A constellation."
    (chunk,) = leaf.chunks
    assert chunk.document == f"some/docs@{COMMIT}/phoenix.md"
    assert chunk.text == "# Phoenix\n\nA bird."


@pytest.mark.parametrize(
    ("folder", "commit", "is_found"),
    [
        (COMMIT[:12], COMMIT, True),
        (COMMIT, COMMIT[:7], True),
        (COMMIT[:6], COMMIT, False),
        ("ffffffffffff", COMMIT, False),
    ],
)
def test_a_commit_is_found_by_seven_characters(
    tmp_path: Path, folder: str, commit: str, is_found: bool
) -> None:
    write_leaf(tmp_path, "knowledge/phoenix", git_document(commit=commit))
    found = codes(tmp_path, write_mirror(tmp_path, folder))
    assert ("FT032" not in found) == is_found


def test_knowledge_without_its_documents_stops_a_run(tmp_path: Path) -> None:
    write_leaf(tmp_path, "knowledge/phoenix", git_document())
    assert codes(tmp_path) == ["FT033", "FT023", "FT045"]
    with pytest.raises(TaxonomyError, match=r"qna.yaml:14:3: .*some/docs.*`taxonomy.mirror`"):
        read(tmp_path, fetch=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaxonomyError, match=r"`some/docs@0a1f.*not in the mirror"):
        read(tmp_path, fetch=False, mirror=str(tmp_path / "empty"))


def test_local_documents_lie_beside_the_leaf_or_in_the_taxonomy(tmp_path: Path) -> None:
    leaf = write_leaf(tmp_path, "knowledge/a", KNOWLEDGE + "  path: .\n", "License: MIT\n")
    (leaf / "near.md").write_text("Near.", encoding="utf-8")
    (leaf / "page.html").write_text("<h1>A</h1><p>B &amp; <b>C</b><script>x</script>", "utf-8")
    write_leaf(tmp_path, "knowledge/b", KNOWLEDGE + "  path: documents\n  patterns: '*.txt'\n")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "far.txt").write_text("Far.", encoding="utf-8")
    (tmp_path / "documents" / "not.md").write_text("Not.", encoding="utf-8")
    first, second = read(tmp_path)
    assert [chunk.text for chunk in first.chunks] == ["Near.", "# A\n\nB & C"]
    assert [(chunk.document, chunk.text) for chunk in second.chunks] == [
        ("documents/far.txt", "Far.")
    ]


@pytest.mark.parametrize(
    "document",
    ["path: ../../../secret.md", "path: /etc/hosts", "path: .\n  patterns: ['../../../*.md']"],
)
def test_documents_outside_the_taxonomy_are_refused(tmp_path: Path, document: str) -> None:
    (tmp_path / "secret.md").write_text("secret", encoding="utf-8")
    leaf = write_leaf(tmp_path / "tree", "knowledge/a", f"{KNOWLEDGE}  {document}\n")
    (leaf / "own.md").write_text("Own.", encoding="utf-8")
    assert "FT035" in codes(tmp_path / "tree")
    with pytest.raises(TaxonomyError, match="out of"):
        read(tmp_path / "tree")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret", encoding="utf-8")
    leaf = write_leaf(tmp_path / "tree", "knowledge/a", KNOWLEDGE + "  path: .\n")
    (leaf / "link.md").symlink_to(tmp_path / "secret.md")
    assert "FT035" in codes(tmp_path / "tree")


def test_files_that_block_or_are_binary_are_left_out(tmp_path: Path) -> None:
    leaf = write_leaf(tmp_path, "knowledge/a", KNOWLEDGE + "  path: .\n")
    os.mkfifo(leaf / "pipe.md")
    (leaf / "binary.md").write_bytes(b"\x00\xff\xfe")
    (leaf / "good.md").write_text("Good.", encoding="utf-8")
    assert codes(tmp_path).count("FT036") == 2
    assert [chunk.text for chunk in read(tmp_path)[0].chunks] == ["Good."]


def test_an_incomplete_seed_is_skipped_and_named(tmp_path: Path) -> None:
    text = SKILL + "  - question: And this?\n    answer:\n  - nonsense\n"
    write_leaf(tmp_path, "foundational_skills/a", text)
    assert len(read(tmp_path)[0].seeds) == 2
    third, fourth = (f for f in check_taxonomy(tmp_path) if f.code == "FT021")
    assert (third.line, third.severity) == (8, "warning")
    assert third.message == "seed 3 has no answer; skipped"
    assert fourth.line == 10


def test_a_leaf_without_usable_seed_is_an_error(tmp_path: Path) -> None:
    write_leaf(tmp_path, "foundational_skills/a", "seed_examples:\n- question: Only?\n")
    with pytest.raises(TaxonomyError, match=r"qna.yaml:2:1: no seed .*taxonomy check"):
        read(tmp_path)


def test_filters_go_first(tmp_path: Path) -> None:
    write_leaf(tmp_path, "knowledge/broken", "[")
    write_leaf(tmp_path, "compositional_skills/good/one", SKILL)
    write_leaf(tmp_path, "compositional_skills/goods", SKILL)
    assert [leaf.path for leaf in read(tmp_path, leaves=["compositional_skills/good"])] == [
        "compositional_skills/good/one"
    ]
    assert len(read(tmp_path, branches=["compositional"])) == 2
    with pytest.raises(TaxonomyError, match="none of 3 leaves"):
        read(tmp_path, leaves=["nowhere"])


def test_a_taxonomy_without_leaves_says_so(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"no qna.yaml in any folder"):
        read(tmp_path)
    with pytest.raises(TaxonomyError, match=r"no such folder"):
        read(tmp_path / "absent")


def test_one_leaf_can_be_read_alone(tmp_path: Path) -> None:
    folder = write_leaf(tmp_path, "compositional_skills/writing/rhymes", SKILL)
    assert read(folder)[0].path == "compositional_skills/writing/rhymes"
    assert read(folder.parent)[0].path == "compositional_skills/writing/rhymes"


def test_all_errors_are_counted(tmp_path: Path) -> None:
    for name in "abc":
        write_leaf(tmp_path, f"compositional_skills/{name}", "- not a leaf\n")
    with pytest.raises(TaxonomyError, match="2 more") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_leaves_of_one_path_are_an_error(tmp_path: Path) -> None:
    write_leaf(tmp_path / "one", "compositional_skills/a", SKILL)
    write_leaf(tmp_path / "two", "compositional_skills/a", SKILL)
    assert codes(tmp_path).count("FT011") == 1


def test_files_read_are_all_that_reading_depends_on(tmp_path: Path) -> None:
    folder = write_leaf(tmp_path / "tree", "knowledge/a", git_document(), "License: MIT")
    mirror = write_mirror(tmp_path)
    config = TaxonomyConfig(path=str(tmp_path / "tree"), mirror=str(mirror))
    document = mirror / "Some+docs" / COMMIT[:12] / "phoenix.md"
    assert sorted(files_read(config).values()) == sorted(
        [folder / "qna.yaml", folder / "attribution.txt", document]
    )


@needs_shared
@pytest.mark.parametrize(
    ("name", "num_leaves"), [("main-2024-07-03", 146), ("main-2025-04-25", 14), ("pr-skills", 120)]
)
def test_real_skills_read(name: str, num_leaves: int) -> None:
    leaves = read(SHARED / name, branches=["foundational", "compositional"])
    assert len(leaves) == num_leaves
    assert all(leaf.seeds for leaf in leaves)


@needs_shared
def test_real_knowledge_reads_with_its_mirror() -> None:
    root = SHARED / "knowledge-with-docs"
    leaves = read(root / "leaves", mirror=str(root / "docs"))
    assert len(leaves) == 21
    assert all(leaf.chunks and leaf.licence for leaf in leaves)
    assert all(chunk.num_tokens <= 400 for leaf in leaves for chunk in leaf.chunks)
    assert all(leaf.exam_seeds for leaf in leaves if len(leaf.seeds) >= 5)
