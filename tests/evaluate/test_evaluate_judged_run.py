"""An exam that a judge scores, in a whole run: three times in ten the judge is of no use, and the
run is killed while it judges."""

import json
import os
import signal
import time
import urllib.request
from collections import Counter

import pytest
import tiny_run

from feldspar.config import WorldConfig
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.runs import open_step, read_rows
from feldspar.world.serve import world_of

NUM_ITEMS = 22
RECIPE = tiny_run.RECIPE.partition("[prefer]")[0].replace("off_format = 0.05", "off_format = 0.3")
RECIPE += """
[[train.phase]]
name = "all"
branches = ["knowledge", "compositional"]

[evaluate]
general = { enabled = false }
max_new_tokens = 8
num_resamples = 50
min_selection_items = 4

[[evaluate.exam]]
name = "everything"
path = "exam.jsonl"
"""
CALLS_IN_COMMITS = 40


def write_exam(folder):
    """All that is true of everybody: too long to match."""
    world = world_of(WorldConfig(num_old=12, num_new=10))
    solutions = [
        world.solve(f"Tell me everything about {e.name}.") for e in (*world.old, *world.new)
    ]
    lines = [{"question": s.question, "answer": s.answer, "match": "judge"} for s in solutions]
    (folder / "exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return world


def served(url):
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as reply:
        return Counter(json.load(reply)["by_stage"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tiny")  # its world's models are made
def test_a_run_with_a_judge_of_nonsense_is_killed_goes_on_and_makes_no_score_of_it(tmp_path, cache):
    recipe = tiny_run.write_recipe(tmp_path, RECIPE)
    world = write_exam(tmp_path)
    with tiny_run.serving_teacher(recipe) as url:
        command = ["run", recipe.name, "--set", f"teacher.endpoint={url}"]
        process = tiny_run.start(*command, cwd=tmp_path, cache=cache)
        while served(url)["judge-exam"] < 10 and process.poll() is None:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        before = served(url)
        done = tiny_run.feldspar(*command, cwd=tmp_path, cache=cache)
        assert done.returncode == 0, done.stderr
        after = served(url)
    assert {s: n for s, n in after.items() if s != "judge-exam"} == {
        s: n for s, n in before.items() if s != "judge-exam"
    }
    run = tmp_path / "runs" / "tiny"
    scores = [s for s in open_step(run, "judged") if s.exam == "everything"]
    checkpoints = dict.fromkeys(s.checkpoint for s in scores)
    # One answer and judgment each, and the same once more where it could not be read.
    num_judged = len(checkpoints) * NUM_ITEMS
    assert list(checkpoints) == ["base", "all"]
    assert num_judged * 1.1 < after["judge-exam"] < num_judged * 1.6 + CALLS_IN_COMMITS
    num_errors = 0
    for score in scores:
        items = list(read_rows(run.joinpath(score.answers_path), BenchmarkItem))
        read = [item for item in items if item.value is not None]
        assert [item.value for item in read] == [
            float(world.is_right(item.question, item.said)) for item in read
        ]
        if score.metric == "judge errors":
            num_errors += len(items) - len(read)
            assert score.num_items == NUM_ITEMS
            assert score.value == (NUM_ITEMS - len(read)) / NUM_ITEMS
        else:
            assert (score.metric, score.num_items) == ("judged right", len(read))
    assert 0 < num_errors < 0.25 * num_judged
    assert "Judge errors" in (run / "report.html").read_text()
    assert "Judge errors" in done.stdout
