"""Preference tuning in a whole run, with a judge: MT-Bench for the start and for each round."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_run import feldspar, rows_bytes, serving_teacher
from world_bench import write_bench

from feldspar.config import WorldConfig
from feldspar.records import Score
from feldspar.runs import open_step

pytestmark = pytest.mark.slow

NUM_QUESTIONS = 2
TWO_ROUNDS = ("prefer.num_rounds=2", "prefer.stop_at_plateau=false", "prefer.control=false")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, tiny: Path, cache: Path) -> Path:
    """The tiny run, gone on with two rounds and a judge from where it was trained."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(tiny.parents[1], folder)
    world = WorldConfig(num_old=12, num_new=10)
    bench = write_bench(folder / "mt-bench", world, NUM_QUESTIONS)
    with serving_teacher(folder / "recipe.toml") as url:
        done = feldspar("run", "recipe.toml", *settings(bench, url), cwd=folder, cache=cache)
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)
        before = rows_bytes(folder / "runs" / "tiny", "preferred")
        again = feldspar("run", "recipe.toml", *settings(bench, url), cwd=folder, cache=cache)
        assert again.stdout == done.stdout
        assert rows_bytes(folder / "runs" / "tiny", "preferred") == before
    return folder


def settings(bench: Path, url: str) -> list[str]:
    judge = ("evaluate.mt_bench.max_new_tokens=4", f"evaluate.mt_bench.data={bench}")
    asked = (f"teacher.endpoint={url}", f"evaluate.mt_bench.judge.endpoint={url}")
    return [word for setting in (*TWO_ROUNDS, *judge, *asked) for word in ("--set", setting)]


def test_each_round_has_its_exams_and_its_rating(judged: Path) -> None:
    preferred = open_step(judged / "runs" / "tiny", "preferred")
    assert preferred is not None
    lines = (preferred.folder / "rounds.jsonl").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert list(first["scores"]) == ["skills", "round-1"]
    assert list(second["scores"]) == ["round-2"]
    for line in (first, second):
        exams = {score["exam"] for score in line["scores"][line["phase"]]}
        assert exams > {"mt-bench"}
        (rating,) = [s for s in line["scores"][line["phase"]] if s["metric"] == "rating"]
        assert 1 <= rating["value"] <= 10
        assert rating["num_items"] == 2 * NUM_QUESTIONS


def test_the_rating_of_the_released_round_is_that_of_the_final_table(judged: Path) -> None:
    run = judged / "runs" / "tiny"
    preferred = open_step(run, "preferred")
    assert preferred is not None
    lines = (preferred.folder / "rounds.jsonl").read_text().splitlines()
    scores = {name: s for line in map(json.loads, lines) for name, s in line["scores"].items()}
    # Where no round is better, the start is released again.
    released = preferred.last().phase
    tuned = "skills" if released == "sft" else released
    (by_round,) = [s["value"] for s in scores[tuned] if s["metric"] == "rating"]
    final = [s for s in open_step(run, "mt-bench") or () if isinstance(s, Score)]
    whole = {s.checkpoint: s.value for s in final if (s.exam, s.metric) == ("mt-bench", "rating")}
    assert whole[released] == by_round
    assert "base" in whole
    assert "mt-bench" in (run / "report.md").read_text().lower()
