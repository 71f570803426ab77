"""The whole method through the command line, on a world so small that it takes seconds."""

import json
import re
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny_run import (
    STEPS,
    digests,
    num_served,
    rows_bytes,
    sample_bytes,
    serving_teacher,
    start,
    step_files,
    write_recipe,
)

from feldspar.records import Conversation
from feldspar.reviews import ReviewDecision, add_decision, review_key
from feldspar.runs import open_step, read_rows

pytestmark = pytest.mark.slow


def rows(run: Path, step: str) -> list[object]:
    found = open_step(run, step)
    assert found is not None, step
    return list(found)


def test_a_run_leaves_every_noun_in_its_directory(tiny: Path) -> None:
    for step in STEPS:
        assert open_step(tiny, step) is not None, step
    leaves, samples = rows(tiny, "leaves"), rows(tiny, "samples")
    assert {leaf.branch for leaf in leaves} == {"knowledge", "compositional"}
    assert {item.use for item in rows(tiny, "leaf-exams")} == {"select", "report"}
    kept = [sample for sample in samples if sample.is_kept]
    rejected = [sample for sample in samples if not sample.is_kept]
    assert {sample.branch for sample in kept} == {"knowledge", "compositional"}
    assert {str(s.rejected_because).partition(":")[0] for s in rejected} >= {"judge", "duplicate"}
    funnel = open_step(tiny, "samples").folder / "funnel.json"
    assert '"kept"' in funnel.read_text()
    assert [phase.name for phase in rows(tiny, "phases")] == [
        *("knowledge-short", "knowledge-long", "skills")
    ]


def test_a_run_ends_in_models_scores_and_a_page(tiny: Path) -> None:
    trained, preferred = rows(tiny, "trained"), rows(tiny, "preferred")
    assert [c.phase for c in trained] == ["knowledge-short", "knowledge-long", "skills"]
    assert [c.phase for c in preferred][:2] == ["control-1", "round-1"]
    for checkpoint in (*trained, *preferred):
        assert (Path(checkpoint.path) / "model.safetensors").is_file(), checkpoint
    scored = {score.checkpoint for score in rows(tiny, "scores")}
    assert scored == {"base", *(c.phase for c in (*trained, *preferred))}
    page = (tiny / "report.html").read_text()
    assert "<svg" in page
    # Nothing is fetched: the names of XML namespaces are no addresses.
    fetched = re.findall(
        r"""(?:\b(?:src|href|action)\s*=\s*|url\(|@import\s+)["']?([^"'\s>)]+)""", page
    )
    assert [place for place in fetched if not place.startswith(("#", "data:"))] == []
    assert "<script src" not in page
    said = (tiny.parents[1] / "stdout").read_text()
    assert "report: runs/tiny/report.html" in said


def test_the_same_command_again_asks_nothing_and_rewrites_nothing(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(tiny.parents[1], folder)
    run = folder / "runs" / "tiny"
    before, said = step_files(run), (folder / "stdout").read_text()
    with serving_teacher(folder / "recipe.toml") as url:
        at = ["--set", f"teacher.endpoint={url}"]
        done = start("run", "recipe.toml", *at, cwd=folder, cache=cache).completed()
        assert num_served(url) == 0
    assert done.returncode == 0, done.stderr
    assert done.stdout == said
    assert step_files(run) == before


def test_another_directory_and_a_fresh_journal_give_the_same_bytes(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    write_recipe(tmp_path)
    at = ["--runs", "elsewhere", "--set", "name=other"]
    done = start("run", "recipe.toml", *at, cwd=tmp_path, cache=cache).completed()
    assert done.returncode == 0, done.stderr
    other = tmp_path / "elsewhere" / "other"
    assert sample_bytes(other) == sample_bytes(tiny)
    assert rows_bytes(other, "leaf-exams") == rows_bytes(tiny, "leaf-exams")
    assert digests(other) == digests(tiny)
    paid = sqlite3.connect(tmp_path / ".feldspar" / "journal.sqlite")
    assert paid.execute("SELECT COUNT(*) FROM answers").fetchone()[0] > 100
    paid.close()


def test_the_next_mix_honours_what_people_decided(tmp_path: Path, tiny: Path, cache: Path) -> None:
    folder = tmp_path / "reviewed"
    shutil.copytree(tiny.parents[1], folder)
    run = folder / "runs" / "tiny"
    kept = [s for s in open_step(run, "samples") if s.is_kept]
    now, key = datetime.now(UTC), open_step(run, "phases").key

    def mixed() -> dict[str, str]:
        done = start("mix", "recipe.toml", "--json", cwd=folder, cache=cache).completed()
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)["reviews"]
        rows = [
            row
            for phase in open_step(run, "phases")
            for row in read_rows(Path(phase.sources[0].path), Conversation)
        ]
        return {row.id: row.messages[-1].content for row in rows} | {"left out": told}

    out, edited = (review_key(sample) for sample in kept[:2])
    accepted = ReviewDecision(sample=out, verdict="accepted", reviewer="ben", at=now)
    add_decision(run, accepted)
    assert mixed()["left out"]["num_agreed"] == 1
    assert open_step(run, "phases").key == key
    add_decision(run, replace(accepted, verdict="rejected", reviewer="anna", reason="wrong"))
    add_decision(
        run,
        replace(accepted, sample=edited, verdict="edited", question="What?", answer="Just this."),
    )
    rows = mixed()
    assert rows["left out"]["num_left_out"] == 1
    assert kept[0].id not in rows
    assert rows[kept[1].id] == "Just this."
    assert open_step(run, "phases").key != key
