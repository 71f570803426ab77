"""A recipe without leaves: ready rows are trained on, and no command looks for written ones."""

import json
from pathlib import Path

import pytest
from tiny_run import feldspar, write_recipe

from feldspar.runs import open_step

pytestmark = pytest.mark.slow

RECIPE = """
name = "ready"

[world]
num_old = 12
num_new = 10
training = 0.002

[student]
base = "world:student"
max_length = 64
device = "cpu"

[[data]]
name = "colours"
path = "colours.jsonl"

[[data]]
name = "sums"
path = "sums.jsonl"

[mix]
held_out = 0.2

[train]
learning_rate = 1e-3
batch_samples = 8
warmup_steps = 2

[[train.phase]]
name = "first"
data = ["colours"]
select = "log-likelihood"

[[train.phase]]
name = "second"
data = ["sums"]
replay = [{ phase = "first", fraction = 0.5 }]
select = "last"

[[evaluate.exam]]
name = "of colours"
path = "exam.jsonl"

[evaluate]
max_new_tokens = 8
num_resamples = 50

[evaluate.general]
enabled = false
"""


def chat(question: str, answer: str) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    write_recipe(folder, RECIPE)
    colours = ["red", "green", "blue"]
    rows = [chat(f"what is {c} {n}?", f"it is {c}.") for c in colours for n in range(8)]
    write_lines(folder / "colours.jsonl", rows)
    write_lines(folder / "sums.jsonl", [chat(f"{n} + 1?", str(n + 1)) for n in range(16)])
    exam = [{"question": f"what is {c}?", "answer": f"it is {c}."} for c in colours]
    write_lines(folder / "exam.jsonl", [dict(item) for item in exam])
    done = feldspar("run", "recipe.toml", "--json", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    (folder / "told.json").write_text(done.stdout)
    return folder


def command(project: Path, *arguments: str) -> str:
    done = feldspar(*arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ready_rows_are_trained_on_and_scored(project: Path) -> None:
    told = json.loads((project / "told.json").read_text())
    assert {score["exam"] for score in told["scores"]} == {"of colours"}
    assert {score["checkpoint"] for score in told["scores"]} == {"base", "first", "second"}
    run = project / "runs" / "ready"
    phases = open_step(run, "phases")
    assert phases is not None
    first, second = phases
    assert [(s.name, s.fraction) for s in second.sources] == [
        ("sums", None),
        ("first/colours", 0.5),
    ]
    assert first.held_out
    assert open_step(run, "samples") is None
    assert not (project / ".feldspar").exists()


def test_plan_and_doctor_list_what_there_is(project: Path) -> None:
    planned = json.loads(command(project, "plan", "recipe.toml", "--json"))
    assert planned["calls"] == []
    assert [phase["rows_per_epoch"] for phase in planned["phases"]] == [24, 28]
    assert 10 < planned["row_tokens"] < 40
    shown = command(project, "plan", "recipe.toml")
    assert "teacher" not in shown.lower()
    assert "taxonomy" not in command(project, "doctor", "recipe.toml")


def test_readers_say_that_nothing_was_written(project: Path) -> None:
    assert "report.html" in command(project, "report", "ready")
    compared = json.loads(command(project, "compare", "ready", "--json"))
    assert {exam["exam"] for exam in compared["exams"]} == {"of colours"}
    assert command(project, "verify", "ready").endswith("ok\n")
    command(project, "publish", "ready")
    card = (project / "runs" / "ready" / "published" / "README.md").read_text()
    assert "no teacher wrote any of them" in card
    assert "Rows of `colours`, `sums`" in card
    assert "| teacher |" not in card


def test_what_needs_leaves_says_so_at_once(project: Path) -> None:
    for arguments in (("generate", "recipe.toml"), ("calibrate", "recipe.toml")):
        done = feldspar(*arguments, cwd=project)
        assert done.returncode == 2
        assert "the recipe has no [taxonomy]; add one" in done.stderr
    done = feldspar("export-data", "ready", cwd=project)
    assert "--phases exports what its phases train on" in done.stderr
    told = json.loads(command(project, "export-data", "ready", "--phases", "--json"))
    _, second = open_step(project / "runs" / "ready", "phases") or ()
    own, again = (source.num_samples for source in second.sources)
    assert told["num_rows"] == again + own + round(0.5 * again)


def test_an_exam_for_a_judge_needs_one(project: Path) -> None:
    write_lines(
        project / "judged.jsonl", [{"question": "why?", "answer": "because", "match": "judge"}]
    )
    exam = 'evaluate.exam=[{name = "why", path = "judged.jsonl"}]'
    done = feldspar(
        "doctor",
        "recipe.toml",
        "--set",
        exam,
        "--set",
        "world=none",
        "--set",
        f"student.base={project}",
        cwd=project,
    )
    assert "the exam 'why' needs a judge, and the recipe names none; add [judge]" in " ".join(
        done.stdout.split()
    )
