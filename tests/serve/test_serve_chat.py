"""A conversation with a run's result: as it comes, beside its base, stopped, and explained."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step
from tiny_base import STUDENT, save_base

from feldspar.config import Recipe
from feldspar.records import Checkpoint, Leaf, Sample, Seed
from feldspar.runs import Run
from feldspar.serve.chat import Conversationalist
from feldspar.steps import Workspace
from feldspar.student.model import load_student, save_checkpoint

SEED = Seed(id="s1", question="Where does Zorbo live?", answer="In Bral.", line=7)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    base = save_base(folder / "base")
    recipe = Recipe(taxonomy={"path": "t"}, student=STUDENT.model_copy(update={"base": base.path}))

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        student = load_student(base.path, recipe.student)
        yield save_checkpoint(student, workspace.folder / "model", phase="skills", step=3)

    def leaves() -> Iterator[Leaf]:
        yield Leaf(path="k/zorbo", branch="knowledge", task_description="", seeds=(SEED,))

    def samples() -> Iterator[Sample]:
        for number, (question, why) in enumerate(
            [("What does Marka eat?", None), ("Where is the home of Zorbo?", None), ("x", "no")]
        ):
            yield Sample(
                id=str(number),
                leaf="k/zorbo",
                branch="knowledge",
                question=question,
                answer="Fish.",
                seeds=("s1",),
                rejected_because=why,
            )

    with Run(folder / "run", recipe) as opened:
        do_step(opened, "leaves", leaves)
        do_step(opened, "samples", samples)
        do_step(opened, "trained", train)
    return opened.path


def test_an_answer_grows_and_the_whole_is_remembered(run: Path) -> None:
    partner = Conversationalist(run, max_tokens=12, temperature=0.0)
    grown = [ours for ours, base in partner.answers("number 7") if base is None]
    assert all(after.startswith(before) for before, after in itertools.pairwise(grown))
    assert [m.role for m in partner.result.history] == ["user", "assistant"]
    assert partner.result.history[1].content == grown[-1]
    partner.forget()
    assert partner.answer("number 7") == grown[-1]


def test_questions_asked_apart_are_answered_as_each_is_alone(run: Path) -> None:
    partner = Conversationalist(run, max_tokens=12, temperature=0.0)
    partner.instruct("Be brief.")
    questions = ["number 7", "Where is the home of Zorbo?", "number 12"]
    alone = []
    for question in questions:
        alone.append(partner.answer(question))
        partner.forget()
    partner.answer("and now?")
    heard = list(partner.result.history)
    assert partner.answers_apart(questions, max_tokens=12) == [(said, None) for said in alone]
    assert partner.result.history == heard
    partner.bring_base()
    assert partner.answers_apart(questions, 12) == [(said, said) for said in alone]


def test_a_stopped_answer_is_kept_as_far_as_it_came(run: Path) -> None:
    partner = Conversationalist(run, max_tokens=30, temperature=1.0)
    answers = partner.answers("number 7")
    said = [next(answers)[0] for _ in range(4)][-1]
    answers.close()
    assert partner.result.history[-1].content == said
    assert partner.answer("and now?")
    assert len(partner.result.history) == 4


def test_the_base_answers_beside_and_hears_the_system_prompt(run: Path) -> None:
    partner = Conversationalist(run, max_tokens=6, temperature=0.0)
    partner.instruct("Be brief.")
    partner.bring_base()
    *_, (ours, base) = partner.answers("number 7")
    # The result of this run is its base, saved again.
    assert ours == base
    assert partner.base is not None
    assert partner.base.history == partner.result.history
    assert partner.base.history[0].content == "Be brief."


def test_why_shows_the_likest_kept_sample_and_its_seeds(run: Path) -> None:
    partner = Conversationalist(run, max_tokens=2, temperature=0.0)
    assert partner.why() == []
    partner.answer("Where is the home of Zorbo, please?")
    found = partner.why()
    assert next(n.sample.id for n in found) == "1"
    assert "2" not in {n.sample.id for n in found}
    assert found[0].seeds == [SEED]
    assert found[0].likeness > 0.5
