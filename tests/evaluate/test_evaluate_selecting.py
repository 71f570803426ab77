"""`select = "mmlu_anatomy"` in a whole run: chosen on one part, reported on the other."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_run

from feldspar.config import read_recipe
from feldspar.errors import RecipeError
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.runs import open_step, read_rows

BENCHMARK = """
[[train.phase]]
name = "all"
branches = ["knowledge", "compositional"]
num_epochs = 2
select = "mmlu_anatomy"

[[evaluate.benchmark]]
task = "mmlu_anatomy"
num_fewshot = 1
data = "anatomy"
"""
EVALUATE = """
[evaluate]
general = { enabled = false }
min_selection_items = 4
"""
NUM_CHOSEN_BY, NUM_REPORTED = 6, 5


def write_anatomy(folder: Path) -> None:
    folder.mkdir()
    for split, num_rows in (("dev", 1), ("validation", NUM_CHOSEN_BY), ("test", NUM_REPORTED)):
        rows = [
            {
                "question": f"Which bone is number {number} of {split}?",
                "subject": "anatomy",
                "choices": ["femur", "ulna", "rib", "atlas"],
                "answer": number % 4,
            }
            for number in range(num_rows)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def test_a_phase_selects_by_a_benchmark_that_the_recipe_has(tmp_path: Path) -> None:
    text = tiny_run.RECIPE + BENCHMARK.replace('select = "mmlu_anatomy"', 'select = "mmlu"')
    with pytest.raises(RecipeError, match=r"selects by 'mmlu'; there are exams, .* mmlu_anatomy"):
        read_recipe(tiny_run.write_recipe(tmp_path, text))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_phase_is_chosen_on_the_validation_part_and_reported_on_the_test_part(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    pytest.importorskip("lm_eval", reason="benchmarks need the extra `eval`")
    folder = tmp_path / "selecting"
    shutil.copytree(tiny.parents[1], folder)
    text = tiny_run.RECIPE.partition("[prefer]")[0] + EVALUATE
    tiny_run.write_recipe(folder, text + BENCHMARK)
    write_anatomy(folder / "anatomy")
    done = tiny_run.feldspar("run", "recipe.toml", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "tiny"
    trained = open_step(run, "trained")
    (selection,) = json.loads(f"[{(trained.folder / 'selections.jsonl').read_text()}]")
    assert (selection["metric"], selection["num_items"]) == ("accuracy", NUM_CHOSEN_BY)
    assert [candidate["value"] is not None for candidate in selection["candidates"]] == [True, True]
    scores = list(open_step(run, "benchmarks"))
    assert [(s.checkpoint, s.exam) for s in scores] == [
        ("base", "mmlu_anatomy"),
        ("all", "mmlu_anatomy"),
    ]
    reported = [i for s in scores for i in read_rows(Path(s.answers_path), BenchmarkItem)]
    assert len(reported) == 2 * NUM_REPORTED
    assert all(" of test?" in item.question for item in reported)
    kept = [
        item
        for path in (cache / "benchmarks").rglob("items.jsonl.zst")
        for item in read_rows(path, BenchmarkItem)
        if " of validation?" in item.question
    ]
    # The start and two candidates, each once.
    assert len(kept) == 3 * NUM_CHOSEN_BY
