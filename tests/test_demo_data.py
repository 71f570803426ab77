"""The demo's own data: every fact that is examined is taught, and no question is asked in both."""

import json
from pathlib import Path

import pytest

from feldspar.config import TaxonomyConfig, read_recipe
from feldspar.taxonomy import read_readable
from feldspar.text.sentences import split_sentences
from feldspar.world.english import ask_about

DEMO = Path(__file__).parents[1] / "recipes" / "demo"


def exam(name: str) -> list[dict[str, str]]:
    lines = (DEMO / "exams" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def asked() -> dict[str, str]:
    """Every question that the rules make of the documents, with its answer."""
    documents = sorted(DEMO.rglob("documents/*.md"))
    sentences = [s for path in documents for s in split_sentences(path.read_text("utf-8"))]
    facts = [fact for sentence in sentences for fact in ask_about(sentence)]
    assert all(ask_about(sentence) for sentence in sentences)
    return {question: fact.answer for fact in facts for question in fact.questions}


def test_new_facts_are_taught_and_asked_in_other_words(asked: dict[str, str]) -> None:
    items = exam("new facts")
    assert len(items) == 60
    for item in items:
        assert item["answer"] in asked.values(), item
        assert item["question"] not in asked, item


def test_two_questions_at_once_are_of_facts_that_no_seed_of_the_skill_has(
    asked: dict[str, str],
) -> None:
    leaves = read_readable(TaxonomyConfig(path=str(DEMO / "taxonomy"), exam_fraction=0.0)).leaves
    (skill,) = [leaf for leaf in leaves if leaf.branch == "compositional"]
    seeds = {seed.answer for seed in skill.seeds}
    for item in exam("two questions at once"):
        first, then = (line.split(": ", 1)[1] for line in item["answer"].splitlines())
        assert {first, then} <= set(asked.values()) - seeds, item


def test_the_recipe_examines_all_three() -> None:
    recipe = read_recipe(DEMO.parent / "demo.toml", [])
    (config,) = recipe.evaluate.exam
    assert (DEMO.parent / config.path).is_dir()
    assert len(list((DEMO.parent / config.path).glob("*.jsonl"))) == 3
