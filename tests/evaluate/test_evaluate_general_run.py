"""The general-knowledge exam as a step of a run, with models of a few thousand weights."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny_run
import torch
from by_hand import do_step
from taught import STUDENT, make_checkpoints

from feldspar.cli.tables import score_tables
from feldspar.config import GeneralConfig, Recipe, read_recipe
from feldspar.errors import RecipeError
from feldspar.evaluate.comparing import compare_scored, open_scored
from feldspar.evaluate.contamination import find_touched
from feldspar.evaluate.general import run as general_run
from feldspar.evaluate.general.questions import EXAM, GeneralItem, general_text, item_of
from feldspar.evaluate.general.scores import KEPT
from feldspar.records import KL, PERPLEXITY, Conversation, Message, Phase, Source
from feldspar.runs import Run, open_step, write_rows
from feldspar.student.model import load_student
from feldspar.student.scoring.log_probs import TEXT_TOKENS, text_log_probs
from feldspar.views import write_report

RECIPE = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
TAUGHT = {"What is red?": "blood", "What is blue?": "sea", "And green?": "leaf"}
ITEMS = tuple(
    GeneralItem(
        id=f"colors/{n}", kind="colors", ask=(question, question), match="holds",
        accepted=(answer,),
    )
    for n, (question, answer) in enumerate([*TAUGHT.items(), *((f"{i}?", "x") for i in range(5))])
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = make_checkpoints(tmp_path_factory.mktemp("models"))
    return {name: replace(made[name], phase=name) for name in made}


@pytest.fixture
def scored(checkpoints, tmp_path, monkeypatch):
    """A run whose base is the taught model, and whose result has forgotten all."""
    monkeypatch.setattr(general_run, "asked_half", lambda use, items_per_kind: list(ITEMS))
    knowing, blank = checkpoints["taught"], checkpoints["base"]
    named = [("base", knowing), ("skills", replace(blank, phase="skills", step=3))]
    with Run(tmp_path / "run", RECIPE) as run:
        do_step(run, "own-exams", list)
        do_step(run, "trained", lambda: [named[1][1]])
        do_step(run, "scores", list)
        rows = run.step(general_run.GENERAL_STEP)(
            named, GeneralConfig(max_new_tokens=16), student=STUDENT, version="0123456789",
            num_resamples=50, seed=1, cache_path=tmp_path / "cache",
        )  # fmt: skip
    return tmp_path / "run", rows


@pytest.mark.slow
def test_a_run_says_what_was_kept(scored):
    found = {(s.checkpoint, s.exam, s.metric): s for s in scored[1]}
    known = found["base", KEPT, "accuracy"]
    assert (known.value, known.num_items) == (1, 3)
    assert found["skills", KEPT, "accuracy"].value == 0
    assert found["base", EXAM, "accuracy"].value == 3 / 8
    assert "16 new tokens" in known.settings
    assert f"{STUDENT.template} template" in known.settings


def test_what_was_kept_stands_in_the_first_table_and_kinds_do_not(scored):
    first, flips, distance = score_tables(list(scored[1]))
    assert list(first.columns[0].cells) == [EXAM, KEPT]
    assert "right to wrong" in list(flips.columns[0].cells)
    assert list(distance.columns[0].cells) == [
        "general text, perplexity", "general prompts, KL to the base",
    ]  # fmt: skip


def test_the_distance_from_the_base_is_measured(scored, checkpoints):
    found = {(s.checkpoint, s.metric): s for s in scored[1]}
    assert found["base", KL].value == pytest.approx(0, abs=1e-5)
    far = found["skills", KL]
    assert far.interval.low > 0.1
    assert far.num_items == 8
    # A model of bytes that knows nothing is near a uniform choice among 256 of them.
    perplexity = found["skills", PERPLEXITY]
    assert 100 < perplexity.value < 400
    assert perplexity.num_items == len(general_text())
    assert perplexity.interval.low < perplexity.value < perplexity.interval.high


def test_text_is_scored_from_its_second_token_on_and_in_pieces(checkpoints):
    student = load_student(checkpoints["base"].path, STUDENT)
    text = "x" * (TEXT_TOKENS + 40)
    short, long = text_log_probs(student, ["red sea", text])
    assert short.num_tokens == len("red sea") - 1
    assert long.num_tokens == len(text) - 2
    (ids,) = student.template.encode_texts(["red sea"])
    with torch.inference_mode():
        logits = student.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1))
    assert short.total == pytest.approx(expected, abs=1e-3)


def test_a_text_of_ones_own_is_read_in_passages(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One\npassage.\n \n\nAnother.\n")
    assert general_text(path) == ["One passage.", "Another."]
    path.write_text(" \n")
    with pytest.raises(RecipeError, match="holds no text"):
        general_text(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        general_text(tmp_path / "gone.txt")


def test_compare_and_the_report_show_it(scored):
    path, _ = scored
    compared = compare_scored(open_scored(path, "base"), open_scored(path), path)
    by_exam = {one.exam: one.difference for one in compared}
    assert by_exam[KEPT].value == -1
    assert by_exam[EXAM].num_pairs == 8
    assert not any(": " in exam for exam in by_exam)
    page = write_report(path).read_text()
    assert KEPT in page
    assert f"{EXAM}: colors" in page


def test_a_question_that_training_holds_is_told(tmp_path):
    row = Conversation(
        id="r", source="mine", messages=(Message(role="user", content="Name the large red planet"),)
    )
    write_rows(tmp_path / "rows.jsonl.zst", [row])
    source = Source(
        name="mine", path=str(tmp_path / "rows.jsonl.zst"), digest="d", num_samples=1
    )  # fmt: skip
    item = replace(ITEMS[0], ask=("Which one is it?", "Name the large red planet."))
    (touched,) = find_touched([Phase(name="p", sources=(source,))], [], general=item.posed())
    assert (touched.item, touched.exam, touched.how) == ("colors/0", EXAM, "ROUGE-L 1.00")
    assert item_of("a#b/c#2") == "a#b/c"


def test_selecting_by_what_was_kept_needs_the_exam(tmp_path):
    text = tiny_run.RECIPE + '[[train.phase]]\nname = "all"\nselect = "learned-and-kept"\n'
    with pytest.raises(RecipeError, match=r"needs evaluate\.general\.enabled = true"):
        read_recipe(tiny_run.write_recipe(tmp_path, text))


@pytest.mark.slow
def test_a_phase_is_chosen_by_what_was_learned_and_kept(tmp_path, tiny, cache):
    folder = tmp_path / "kept"
    shutil.copytree(tiny.parents[1], folder)
    text = tiny_run.RECIPE.partition("[prefer]")[0] + KEPT_RECIPE
    tiny_run.write_recipe(folder, text)
    done = tiny_run.feldspar("run", "recipe.toml", "--json", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    scores = {(s["checkpoint"], s["exam"]): s for s in json.loads(done.stdout)["scores"]}
    assert scores["all", EXAM]["num_items"] > 300
    assert scores["all", "general text"]["value"] > 1
    trained = open_step(folder / "runs" / "tiny", "trained")
    (selection,) = json.loads(f"[{(trained.folder / 'selections.jsonl').read_text()}]")
    assert selection["metric"] == "learned and kept"
    assert len(selection["candidates"]) == 2


KEPT_RECIPE = """
[evaluate]
max_new_tokens = 8
num_resamples = 50
min_selection_items = 4
general = { max_new_tokens = 2 }

[[train.phase]]
name = "all"
branches = ["knowledge", "compositional"]
num_epochs = 2
select = "learned-and-kept"
"""
