"""The world as files: deterministic, read by the taxonomy's own reader, with honest exams."""

import json
from pathlib import Path

import pytest

from feldspar.config import TaxonomyConfig, WorldConfig
from feldspar.errors import TaxonomyError
from feldspar.taxonomy import check_taxonomy, read_taxonomy
from feldspar.world.prose import FACT_FORMS
from feldspar.world.serve import world_of
from feldspar.world.skills import COMPOSITIONAL, FOUNDATIONAL
from feldspar.world.truth import World
from feldspar.world.write import WorldFiles, world_texts, write_world

CONFIG = WorldConfig(num_old=40, num_new=30)


@pytest.fixture(scope="module")
def world() -> World:
    made = world_of(CONFIG)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return write_world(CONFIG, tmp_path_factory.mktemp("worlds") / "one")


def test_the_same_config_gives_the_same_bytes(files: WorldFiles, world: World) -> None:
    for name, text in world_texts(world):
        assert (files.exams.parent / name).read_bytes() == text.encode(), name
    other = world_of(WorldConfig(seed=2, num_old=40, num_new=30))
    assert other is not None
    assert other.new != world.new


def test_the_taxonomy_is_read_without_findings(files: WorldFiles) -> None:
    # The contexts of seeds tell in other words what the documents do.
    assert {finding.code for finding in check_taxonomy(files.taxonomy)} <= {"FT041"}
    leaves = list(read_taxonomy(TaxonomyConfig(path=str(files.taxonomy))))
    branches = [leaf.branch for leaf in leaves]
    assert branches.count("foundational") == len(FOUNDATIONAL)
    assert branches.count("compositional") == len(COMPOSITIONAL) + 1
    assert branches.count("knowledge") == 2
    for leaf in leaves:
        assert len(leaf.seeds) >= 5
        assert leaf.exam_seeds
        assert leaf.task_description
        assert leaf.attribution
        assert bool(leaf.chunks) == (leaf.branch == "knowledge")


def test_every_seed_is_true_and_in_no_exam(files: WorldFiles, world: World) -> None:
    asked_in_exams = {s.question for exam in world.exams().values() for s in exam if not s.context}
    reserved = {entity.name for entity in world.old_for_exam}
    untaught = {entity.name for entity in world.set_b(world.new)}
    for leaf in read_taxonomy(TaxonomyConfig(path=str(files.taxonomy))):
        for seed in (*leaf.seeds, *leaf.exam_seeds):
            context = seed.context if leaf.branch == "compositional" else None
            solution = world.solve(seed.question, context)
            assert solution is not None, seed
            assert seed.answer == solution.answer
            assert "tool" in solution.kind or seed.question not in asked_in_exams
            names = {fact.name for fact in solution.facts}
            assert not names & reserved
            assert leaf.branch == "knowledge" or not names & untaught


def test_documents_tell_every_fact_of_the_new_and_of_no_other(
    files: WorldFiles, world: World
) -> None:
    told = "".join(path.read_text() for path in sorted(files.taxonomy.rglob("documents/*.md")))
    for entity in world.new:
        assert f"## {entity.name}\n" in told
    assert not any(entity.name in told for entity in world.old)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_exams_are_honest_about_what_was_taught(files: WorldFiles, world: World) -> None:
    exams = {path.stem: rows(path) for path in files.exams.glob("*.jsonl")}
    assert set(exams) == {
        "new-knowledge",
        "old-knowledge",
        "foundational",
        "compositional-unseen-pairs",
        "compositional-unseen-entities",
    }
    for items in exams.values():
        assert items
        for item in items:
            assert set(item) <= {"question", "answer", "context", "accepted", "match"}
            context = item.get("context")
            assert world.is_right(str(item["question"]), str(item["answer"]), context)  # type: ignore[arg-type]
    first_forms = {forms[0] for forms in FACT_FORMS.values()}
    for entity, item in zip(
        (e for e in world.new for _ in FACT_FORMS), exams["new-knowledge"], strict=True
    ):
        assert str(item["question"]).replace(entity.name, "{name}") in first_forms


def test_base_replay_tells_nothing_of_the_exams(files: WorldFiles, world: World) -> None:
    said = files.base_replay.read_text(encoding="utf-8")
    forbidden = (*world.old_for_exam, *world.new)
    assert not any(entity.name in said for entity in forbidden)
    for row in rows(files.base_replay):
        messages = row["messages"]
        assert isinstance(messages, list)
        assert [message["role"] for message in messages] == (
            ["assistant"] if row["unmask"] else ["user", "assistant"]
        )


@pytest.mark.slow
def test_a_folder_is_written_once_and_never_over_something_else(tmp_path: Path) -> None:
    config = WorldConfig(num_old=20, num_new=10)
    files = write_world(config, tmp_path / "world")
    before = files.base_replay.stat().st_mtime_ns
    assert write_world(config, tmp_path / "world") == files
    assert files.base_replay.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    with pytest.raises(TaxonomyError, match="holds something else"):
        write_world(WorldConfig(seed=2, num_old=20, num_new=10), tmp_path / "world")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(TaxonomyError, match="holds something else"):
        write_world(config, tmp_path / "mine")
