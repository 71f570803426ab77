"""A published directory is a plain model directory, and replaces nothing that is not ours."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from by_hand import do_step
from huggingface_hub import ModelCard, parse_eval_result_entries
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny import make_tokenizer
from tiny_base import STUDENT, save_base
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from feldspar.config import PublishConfig, Recipe
from feldspar.errors import RunError
from feldspar.publish.base_facts import hub_id_of
from feldspar.publish.card import Extras, model_card
from feldspar.publish.chain import runs_behind
from feldspar.publish.data_card import data_card
from feldspar.publish.directory import publish_run
from feldspar.publish.licence import Licence
from feldspar.publish.machine_files import front_matter, write_citation, write_eval_results
from feldspar.records import Checkpoint, Interval, Leaf, PairedShares, Score
from feldspar.reviews import ReviewCounts, note_honoured
from feldspar.runs import Run, result_of
from feldspar.serve.chat import Conversationalist
from feldspar.steps import Workspace
from feldspar.student.bases.origin import ORIGIN
from feldspar.student.model import load_student, make_student, save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose result is a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("publish")
    base = save_base(folder / "base")
    recipe = Recipe(taxonomy={"path": "t"}, student=STUDENT.model_copy(update={"base": base.path}))

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        student = load_student(base.path, recipe.student)
        yield save_checkpoint(student, workspace.folder / "model", phase="skills", step=3)

    with Run(folder / "run", recipe) as opened:
        do_step(opened, "trained", train)
    return opened.path


def published(run: Path, out: Path) -> Path:
    publish_run(run, out)
    return out


def test_plain_transformers_says_what_our_chat_says(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "number 7"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    theirs = tokenizer.decode(new, skip_special_tokens=True)
    ours = Conversationalist(run, max_tokens=8, temperature=0.0).answer("number 7")
    assert theirs.strip() == ours.strip() != ""


def test_the_card_and_the_checksums_are_there(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    assert "phase `skills`, step 3" in (out / "README.md").read_text()
    for line in (out / "CHECKSUMS.sha256").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest, name


def test_only_what_we_published_is_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish_run(run, out)
    publish_run(run, out)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="was not published by feldspar"):
        publish_run(run, theirs)
    assert (theirs / "thesis.txt").read_text() == "years of work"


def test_a_run_without_a_model_is_told(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
    with Run(tmp_path / "run", recipe):
        pass
    with pytest.raises(RunError, match="has no trained model yet"):
        publish_run(tmp_path / "run", tmp_path / "out")


def test_large_weights_are_split_and_still_load(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2
    )
    student = make_student(LlamaForCausalLM(config), tokenizer, STUDENT)
    save_checkpoint(student, tmp_path / "out", phase="skills", step=1, max_shard_mb=2)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    pairs = zip(student.model.parameters(), loaded.parameters(), strict=True)
    assert all(bool((one == other).all()) for one, other in pairs)


@pytest.mark.slow
def test_a_published_directory_needs_nothing_of_ours(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    code = (
        "import sys\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(out)!r})\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(out)!r})\n"
        "turns = [{'role': 'user', 'content': 'number 7'}]\n"
        "inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True,\n"
        "    return_tensors='pt', return_dict=True)\n"
        "new = model.generate(**inputs, max_new_tokens=8, do_sample=False)\n"
        "new = new[0, inputs['input_ids'].shape[1]:]\n"
        "print(repr(tokenizer.decode(new, skip_special_tokens=True)))\n"
        "assert not [name for name in sys.modules if name.startswith('feldspar')]\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    ours = Conversationalist(run, max_tokens=8, temperature=0.0).answer("number 7")
    assert ast.literal_eval(done.stdout).strip() == ours.strip()


def test_the_card_sets_scores_beside_the_base_and_beside_published_rows(tmp_path: Path) -> None:
    recipe = Recipe(
        taxonomy={"path": "t"},
        student={"base": "owner/base"},
        publish={"compare_with": ["Merlinite-7b-pt"]},
    )
    done = Checkpoint(path="m", digest="0", phase="skills", step=3)

    def scores(exam: str, metric: str, base: float, ours: float) -> Iterator[Score]:
        for checkpoint, value in (("base", base), ("knowledge", 0.0), ("skills", ours)):
            yield Score(
                checkpoint=checkpoint,
                exam=exam,
                metric=metric,
                value=value,
                interval=Interval(value - 0.02, value + 0.03),
                num_items=57,
                settings="5-shot, no chat template",
            )

    def leaves() -> Iterator[Leaf]:
        for path, licence in (("k/a", "MIT"), ("k/b", "MIT"), ("k/c", "")):
            yield Leaf(
                path=path, branch="knowledge", task_description="", seeds=(), licence=licence
            )

    with Run(tmp_path / "run", recipe) as opened:
        do_step(opened, "leaves", leaves)
        do_step(opened, "scores", scores, "leaf exams", "accuracy", -0.001, 0.5)
        do_step(opened, "benchmarks", scores, "mmlu", "acc", 0.25, 0.61)
    card = model_card(runs_behind(tmp_path / "run"), recipe, done, Licence("mit", []), Extras())
    assert "base_model: owner/base\n" in card
    assert "| leaf exams | 57 | accuracy | 0.00 [-0.02, 0.03] | 0.50 [0.48, 0.53] |" in card
    assert "| skills, this run | - | 61.0±3.0 | - | - | - | - |" in card
    assert "| Merlinite-7b-pt, published | 7.96 e | 63.59 |" in card
    assert "Granite-7b-lab" not in card
    assert "- this run, MMLU: 5-shot, no chat template (57 items)" in card
    assert "- published, MMLU: 5-shot, acc\n" in card
    assert "best of five runs" in card
    assert "MistralAI's release blog" not in card
    assert "| knowledge | 3 | 0 | 0 | MIT (2), not stated (1) |" in card


def test_a_row_that_was_never_published_is_not_compared_with() -> None:
    with pytest.raises(ValidationError, match="no published row of 'GPT-9'; there are: Llama-2"):
        PublishConfig(compare_with=("GPT-9",))


def test_the_cards_say_where_it_comes_from(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    card, data = (out / "README.md").read_text(), (out / "DATA.md").read_text()
    assert "license: unknown" in card
    assert "set publish.licence" in card
    assert "apply_chat_template" in card
    assert "0 of 0 samples" in data
    assert "DATA.md" in (out / "CHECKSUMS.sha256").read_text()


@pytest.mark.slow
def test_weights_are_published_in_the_precision_of_the_base(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    whole = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    whole.save_pretrained(base.path)
    (tmp_path / "base" / "README.md").write_text("---\nbase_model: owner/whole\n---\n")
    (tmp_path / "base" / ORIGIN).write_text("{}")
    recipe = Recipe(taxonomy={"path": "t"}, student=STUDENT.model_copy(update={"base": base.path}))

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        student = load_student(base.path, recipe.student)
        yield save_checkpoint(student, workspace.folder / "model", phase="skills", step=3)

    with Run(tmp_path / "run", recipe) as opened:
        do_step(opened, "trained", train)
    out = published(opened.path, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    card = (out / "README.md").read_text()
    assert "base_model: owner/whole\n" in card
    assert "| weights | bfloat16; the run's checkpoint is in float32 |" in card
    stated = {"dtype": "float32", "base_model": "owner/other", "licence": "our own"}
    with Run(tmp_path / "run", recipe.model_copy(update={"publish": PublishConfig(**stated)})):
        pass
    out = published(opened.path, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.float32
    card = (out / "README.md").read_text()
    fields = ModelCard.load(out / "README.md").data
    assert (fields.base_model, fields.license, fields.license_name) == (
        "owner/other",
        "other",
        "our-own",
    )
    assert "| weights | float32 |" in card


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("owner/base", "owner/base"),
        ("/hub/models--owner--a-model/snapshots/0f", "owner/a-model"),
        ("/somewhere/owner/base", ""),
        ("package:a==1/b.gguf", ""),
    ],
)
def test_the_id_of_a_base_is_known_by_where_it_lies(base: str, found: str) -> None:
    assert hub_id_of(base) == found


def test_the_model_that_a_base_was_tuned_from_is_not_the_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_name_or_path": "owner/parent"}')
    (tmp_path / "README.md").write_text("---\nbase_model: owner/parent\n---\n")
    assert hub_id_of(str(tmp_path)) == ""
    # A GGUF file's own facts say what it was converted from.
    (tmp_path / ORIGIN).write_text("{}")
    assert hub_id_of(str(tmp_path)) == "owner/parent"


def test_a_result_that_was_taught_more_lists_the_licences_of_all_its_runs(tmp_path: Path) -> None:
    def leaf(path: str, licence: str) -> Iterator[Leaf]:
        yield Leaf(path=path, branch="knowledge", task_description="", seeds=(), licence=licence)

    def recipe(base: str, *data: str) -> Recipe:
        rows = [{"name": Path(run).name, "run": run} for run in data]
        return Recipe.model_validate(
            {"taxonomy": {"path": "t"}, "student": {"base": base}, "data": rows}
        )

    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    with Run(first, recipe("owner/base")) as opened:
        do_step(opened, "leaves", leaf, "k/a", "CC-BY-SA-4.0")
    with Run(second, recipe(f"{first}/steps/trained/0/1-p/step-000004", str(first))) as opened:
        do_step(opened, "leaves", leaf, "k/b", "GPL-3.0")
    with Run(third, recipe(f"{second}/steps/trained/0/1-p/step-000004")) as opened:
        do_step(opened, "leaves", leaf, "k/c", "MIT")
    chain = runs_behind(third)
    assert [run.name for run in chain.runs] == ["first", "second", "third"]
    assert chain.base == "owner/base"
    assert [leaf.licence for leaf in chain.leaves()] == ["CC-BY-SA-4.0", "GPL-3.0", "MIT"]
    note_honoured(second, ReviewCounts(reviewers=("anna",), num_reviewed=4, num_left_out=1))
    card = data_card(chain, "third")
    assert "Before training, anna reviewed 4 samples: 1 left out." in card
    assert all(f"| `k/{name}` |" in card for name in "abc")
    (first / "recipe.json").unlink()
    assert runs_behind(third).missing == [str(first)]


def test_the_cards_front_matter_is_the_hubs(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.license == "unknown"
    assert card.data.base_model is None
    text = front_matter(Licence("our-own", []), base_model="owner/base", has_gguf=True)
    assert yaml.safe_load(text) == {
        "base_model": "owner/base",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "other",
        "license_name": "our-own",
        "license_link": "README.md",
        "pipeline_tag": "text-generation",
        "tags": ["LAB", "feldspar", "gguf"],
    }


def test_scores_on_whole_benchmarks_are_written_as_the_hub_shows_them(tmp_path: Path) -> None:
    def score(exam: str, checkpoint: str, settings: str) -> Score:
        return Score(
            checkpoint=checkpoint,
            exam=exam,
            metric="acc",
            value=0.51234,
            interval=Interval(0.5, 0.52),
            num_items=100,
            settings=settings,
        )

    scores = [
        score("mmlu", "skills", "5-shot, no chat template, lm_eval 0.4.13"),
        score("mmlu", "base", "5-shot, no chat template, lm_eval 0.4.13"),
        score("gsm8k", "skills", "5-shot, first 10 items of a task"),
        score("my own", "skills", "greedy"),
    ]
    [path] = write_eval_results(tmp_path, scores, "skills")
    assert path == tmp_path / ".eval_results" / "mmlu.yaml"
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("cais/mmlu", "mmlu", 51.23)


def test_the_recipe_and_the_citation_stand_beside_the_weights(run: Path, tmp_path: Path) -> None:
    out = published(run, tmp_path / "out")
    written = json.loads((out / "recipe.json").read_text())
    text = json.dumps([written["recipe"]], sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == written["digest"]
    assert str(tmp_path.parent) not in (out / "recipe.json").read_text()
    assert f"digest `{written['digest'][:16]}`" in (out / "README.md").read_text()
    citation = yaml.safe_load((out / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    leaf = Leaf(path="k", branch="knowledge", task_description="", seeds=(), created_by="ann")
    recipe = Recipe(taxonomy={"path": "t"}, student={"base": "b"})
    done = Checkpoint(path="m", digest="0" * 64, phase="skills", step=3)
    write_citation(tmp_path, recipe, done, [leaf, leaf])
    assert yaml.safe_load((tmp_path / "CITATION.cff").read_text())["authors"] == [{"name": "ann"}]


def test_learned_kept_and_lost_are_told_from_noise(tmp_path: Path) -> None:
    recipe = Recipe(taxonomy={"path": "t"}, student={"base": "owner/base"})
    done = Checkpoint(path="m", digest="0", phase="skills", step=3)

    def shares(exam: str, after: float, low: float, high: float, **more: Any) -> PairedShares:
        interval = Interval(low, high)
        return PairedShares(
            exam=exam, num_items=40, before=0.5, after=after, interval=interval, **more
        )

    changes = [
        shares("facts", 0.9, 0.2, 0.6),
        shares("facts", 0.6, -0.1, 0.3, leaf="knowledge/a"),
        shares("general", 0.2, -0.5, -0.1, is_retention=True),
        shares("safety", 0.5, -0.1, 0.1, is_retention=True),
    ]
    with Run(tmp_path / "run", recipe) as opened:
        chain = runs_behind(opened.path)
    card = model_card(chain, recipe, done, Licence("mit", []), Extras(changes=changes))
    assert "| facts | 40 | 0.50 | 0.90 | +0.40 [+0.20, +0.60] | learned |" in card
    assert "| `knowledge/a` | 40 | 0.50 | 0.60 | +0.10 [-0.10, +0.30] | within noise |" in card
    assert "| general | 40 | 0.50 | 0.20 | -0.30 [-0.50, -0.10] | lost |" in card
    assert "| safety | 40 | 0.50 | 0.50 | +0.00 [-0.10, +0.10] | within noise |" in card


@pytest.mark.parametrize("name", ["generation_config.json", "config.json", "tokenizer.json"])
def test_a_cut_file_of_the_model_is_named_and_nothing_is_half_published(
    run: Path, tmp_path: Path, name: str
) -> None:
    whole = tmp_path / "run"
    shutil.copytree(run, whole)
    cut = Path(result_of(whole).path) / name
    cut.write_text(cut.read_text()[:20])
    with pytest.raises(RunError, match=rf"{name}: damaged \(it is no JSON"):
        publish_run(whole, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
