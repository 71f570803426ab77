"""Multiple-choice exams: wrong answers by the teacher, checked by the judge, against the truth."""

import pytest

from feldspar.config import ErrorRates, GenerateConfig, TaxonomyConfig, TeacherConfig, WorldConfig
from feldspar.evaluate.scores import CHOICE_EXAMS, LEAF_EXAMS, scores_of
from feldspar.generate import estimate, make_exams
from feldspar.records import Answer
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Journal, open_teacher
from feldspar.world.serve import start_teacher, world_of
from feldspar.world.write import write_world

pytestmark = pytest.mark.slow
WORLD = WorldConfig(num_old=12, num_new=10)
CONFIG = GenerateConfig(exam_items=6, exam_choices=3)


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    files = write_world(WORLD, tmp_path_factory.mktemp("choices") / "world")
    taxonomy = TaxonomyConfig(path=str(files.taxonomy), chunk_tokens=120)
    return list(read_taxonomy(taxonomy))


def exams(leaves, folder, rates, config=CONFIG):
    with Journal(folder / "journal.sqlite") as journal, start_teacher(WORLD, rates) as url:
        teacher = open_teacher(TeacherConfig(), url, journal)
        return list(
            make_exams(
                Workspace(folder=folder), leaves, config, teacher=teacher, judge=teacher, seed=1
            )
        )


def is_sound(item):
    """The reference is right, and nothing beside it, by what the world knows."""
    world = world_of(WORLD)
    texts = (item.reference, *item.choices)
    return [world.is_right(item.question, text, item.context) for text in texts] == [
        True,
        *[False] * len(item.choices),
    ]


def test_every_reported_question_is_asked_once_more_as_a_choice(leaves, tmp_path):
    items = exams(leaves, tmp_path, ErrorRates())
    choices = [item for item in items if item.match == "choice"]
    others = [item for item in items if item.match != "choice"]
    assert {item.use for item in choices} == {"report"}
    asked = {(item.leaf, item.question, item.context) for item in choices}
    reported = {(i.leaf, i.question, i.context) for i in others if i.use == "report"}
    assert asked <= reported
    assert len(asked) > 0.9 * len(reported)
    assert all(1 <= len(item.choices) <= 3 and is_sound(item) for item in choices)
    assert {item.branch for item in choices} == {"knowledge", "foundational", "compositional"}
    # The rest of the exams is as it is without them.
    plain = CONFIG.model_copy(update={"exam_choices": 0})
    assert exams(leaves, tmp_path, ErrorRates(), plain) == others


def test_a_teacher_that_offers_right_answers_is_found_out(leaves, tmp_path):
    faulty = ErrorRates(wrong_fact=0.4)
    choices = [i for i in exams(leaves, tmp_path, faulty) if i.match == "choice"]
    sound = [i for i in choices if i.branch != "knowledge" or is_sound(i)]
    clean = [i for i in exams(leaves, tmp_path, ErrorRates()) if i.match == "choice"]
    assert 0 < len(choices) < len(clean)
    assert len(sound) == len(choices)


def test_choices_are_a_figure_of_their_own(leaves, tmp_path):
    items = exams(leaves, tmp_path, ErrorRates())
    answers = [
        Answer(
            item=item.id,
            exam=item.exam,
            leaf=item.leaf,
            text="",
            is_right=item.match == "choice",
            log_likelihood=-1.0,
        )
        for item in items
    ]
    found = {
        s.exam: s.value
        for s in scores_of("base", items, answers, num_resamples=10, seed=1)
        if s.metric == "accuracy" and not s.leaf
    }
    assert (found[CHOICE_EXAMS], found[LEAF_EXAMS]) == (1.0, 0.0)
    assert found[f"{CHOICE_EXAMS}: knowledge"] == 1.0


def test_the_plan_counts_the_calls(leaves):
    stages = {e.stage: e.calls for e in estimate(leaves, CONFIG) if e.step == "exams"}
    assert stages["exam-choices"] == stages["judge-choices"] > 0
    plain = {e.stage for e in estimate(leaves, GenerateConfig(exam_items=6))}
    assert not plain & {"exam-choices", "judge-choices"}
