"""Exam scores in the micro-world, whose truth is known: answers right and wrong by construction."""

import random
import statistics

import pytest

from feldspar.config import (
    ErrorRates,
    ExamConfig,
    GenerateConfig,
    TaxonomyConfig,
    TeacherConfig,
    WorldConfig,
)
from feldspar.evaluate.exams.read import exam_files, read_exams
from feldspar.evaluate.scores import LEAF_EXAMS, compare, scores_of
from feldspar.generate import make_exams
from feldspar.records import Answer
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Journal, open_teacher
from feldspar.text.match import is_right
from feldspar.world.serve import start_teacher, world_of
from feldspar.world.truth import ends_with
from feldspar.world.write import write_world

pytestmark = pytest.mark.slow  # a world is written, and its teacher started
CONFIG = WorldConfig(num_old=12, num_new=10)
WORLD = world_of(CONFIG)
WORDINGS = ("{answer}", "{final}", "The answer is: **{final}**.", "{answer} So it is {final}!")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """The world's five exams, and those of its leaves: held-out seeds and judged questions."""
    folder = tmp_path_factory.mktemp("world")
    files = write_world(CONFIG, folder / "world")
    found = list(read_exams(exam_files(ExamConfig(name="world", path=str(files.exams)))))
    leaves = list(read_taxonomy(TaxonomyConfig(path=str(files.taxonomy), chunk_tokens=120)))
    with Journal(folder / "journal.sqlite") as journal, start_teacher(CONFIG, ErrorRates()) as url:
        teacher = open_teacher(TeacherConfig(), url, journal)
        found += make_exams(
            Workspace(folder=folder),
            leaves,
            GenerateConfig(exam_items=6),
            teacher=teacher,
            judge=teacher,
            seed=1,
        )
    return [item for item in found if item.match != "likelihood"]


def answer(item, is_known, rng):
    """A right answer in one of several wordings, or a wrong one that looks like it."""
    solution = WORLD.solve(item.question, item.context)
    assert solution is not None, item
    text = rng.choice(WORDINGS).format(answer=solution.answer, final=solution.final)
    while not is_known:
        # Another age may leave the same person the older one.
        text = WORLD.corrupt(solution, rng)
        if not ends_with(text, solution.final):
            break
    return Answer(
        item=item.id,
        exam=item.exam,
        leaf=item.leaf,
        text=text,
        is_right=is_right(text, item),
        log_likelihood=-1.0,
    )


def test_scores_are_what_is_known(items):
    """Of every exam, leaf, branch and origin, and of the whole; no answer is an exception."""
    assert len({item.exam for item in items}) > 10
    assert {item.branch for item in items} == {None, "knowledge", "foundational", "compositional"}
    for share in (0.0, 0.3, 1.0):
        rng = random.Random(f"{share}")
        known = {item.id: rng.random() < share for item in items}
        answers = [answer(item, known[item.id], rng) for item in items]
        assert {a.item: a.is_right for a in answers} == known
        scores = scores_of("base", items, answers, num_resamples=10, seed=1)
        found = {(s.exam, s.leaf): s.value for s in scores if s.metric == "accuracy"}
        for exam in {item.exam for item in items}:
            of_exam = [known[item.id] for item in items if item.exam == exam]
            values = {value for (name, _), value in found.items() if name == exam}
            assert values == {statistics.fmean(of_exam)}
        of_leaves = [item for item in items if item.origin != "file"]
        assert found[LEAF_EXAMS, ""] == statistics.fmean(known[i.id] for i in of_leaves)
        for branch in ("knowledge", "foundational", "compositional"):
            of_branch = [known[i.id] for i in of_leaves if i.branch == branch]
            assert found[f"{LEAF_EXAMS}: {branch}", ""] == statistics.fmean(of_branch)


def test_what_was_learned_and_forgotten_is_what_changed(items):
    rng = random.Random("change")
    knew, knows = ({item.id: rng.random() < share for item in items} for share in (0.3, 0.7))
    before, after = (
        [answer(item, known[item.id], rng) for item in items] for known in (knew, knows)
    )
    for found in compare(items, before, after, num_resamples=10, seed=1):
        if found.metric == "accuracy" and not found.exam.startswith(LEAF_EXAMS):
            same = [i for i in items if i.exam == found.exam]
            changes = [float(knows[i.id]) - float(knew[i.id]) for i in same]
            assert found.difference.value == statistics.fmean(changes)
