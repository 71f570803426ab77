"""A whole run with a model on a server next to its own: in scores, report, table and comparison."""

import json

import pytest
import tiny_run

from feldspar.runs import open_step

RECIPE = tiny_run.RECIPE.partition("[prefer]")[0]
RECIPE += """
[evaluate]
general = { enabled = false }
max_new_tokens = 24
num_resamples = 50
min_selection_items = 4

[evaluate.server]
endpoint = "URL"
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tiny")  # its world's models are made
def test_a_served_model_has_a_row_next_to_the_runs_own(tmp_path, cache):
    recipe = tiny_run.write_recipe(tmp_path, RECIPE)
    with tiny_run.serving_teacher(recipe) as url:
        tiny_run.write_recipe(tmp_path, RECIPE.replace("URL", url))
        done = tiny_run.feldspar("run", recipe.name, cwd=tmp_path, cache=cache)
        assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert "feldspar-world" in done.stdout.replace("\n", "")
    assert "feldspar-world" in (run / "report.html").read_text()
    served = {(s.exam, s.metric): s.value for s in open_step(run, "served-exams")}
    own = {s.exam: s.value for s in open_step(run, "scores") if s.metric == "accuracy"}
    # The teacher knows its world, and returns no log-probabilities.
    assert served["leaf exams", "accuracy"] > 0.5 > own["leaf exams"]
    assert {metric for _, metric in served} == {"accuracy"}
    compared = tiny_run.feldspar(
        "compare", "tiny@feldspar-world", "tiny", "--json", cwd=tmp_path, cache=cache
    )
    assert compared.returncode == 0, compared.stderr
    exams = json.loads(compared.stdout)["exams"]
    (of_leaves,) = [c for c in exams if c["exam"] == "leaf exams"]
    assert of_leaves["difference"][0] < 0
    # At another address nothing is made again.
    before = tiny_run.step_files(run)
    with tiny_run.serving_teacher(recipe) as url:
        moved = tiny_run.feldspar(
            "run", recipe.name, "--set", f"evaluate.server.endpoint={url}", cwd=tmp_path,
            cache=cache,
        )  # fmt: skip
    assert moved.returncode == 0, moved.stderr
    assert tiny_run.step_files(run) == before
