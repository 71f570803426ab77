"""What judging and filtering are worth, measured against the world's truth."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from feldspar.config import ErrorRates, GenerateConfig, TaxonomyConfig, TeacherConfig, WorldConfig
from feldspar.generate import generate_samples
from feldspar.records import Leaf, Sample
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Journal, open_teacher
from feldspar.world.judge import is_unsafe, world_truth
from feldspar.world.serve import start_teacher, world_of
from feldspar.world.truth import World
from feldspar.world.write import write_world

pytestmark = pytest.mark.slow

WORLD = WorldConfig(num_old=40, num_new=30)
RATES = ErrorRates(
    wrong_fact=0.15,
    unfaithful=0.05,
    off_format=0.05,
    duplicate=0.10,
    unsafe=0.04,
    wrong_judgment=0.04,
)
CONFIG = GenerateConfig(samples_per_leaf=60, calls_per_chunk=6, exam_items=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The same leaves, taught by the same teacher, with judges and without."""

    world: World
    leaves: list[Leaf]
    judged: list[Sample]
    unjudged: list[Sample]

    def share_wrong(self, samples: list[Sample]) -> float:
        kept = [sample for sample in samples if sample.is_kept]
        assert len(kept) > 300
        return sum(not self.is_right(sample) for sample in kept) / len(kept)

    def is_right(self, sample: Sample) -> bool:
        return world_truth(self.world, sample) is True


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("truth")
    files = write_world(WORLD, folder / "world")
    leaves = list(read_taxonomy(TaxonomyConfig(path=str(files.taxonomy), chunk_tokens=120)))
    world = world_of(WORLD)
    assert world is not None
    with start_teacher(WORLD, RATES) as url, Journal(folder / "journal.sqlite") as journal:
        teacher = open_teacher(TeacherConfig(concurrency=16), url, journal)

        def generate(config: GenerateConfig) -> list[Sample]:
            return list(
                generate_samples(
                    Workspace(folder=folder),
                    leaves,
                    config,
                    teacher=teacher,
                    judge=teacher,
                    avoid=[],
                    seed=1,
                )
            )

        return Tables(
            world=world,
            leaves=leaves,
            judged=generate(CONFIG),
            unjudged=generate(CONFIG.model_copy(update={"judge": False})),
        )


class Quality(NamedTuple):
    """Of a filter: how much of what it throws away is bad; how much of the bad it throws away."""

    precision: float
    recall: float


def quality_of(verdicts: list[tuple[bool, bool]]) -> Quality:
    """From pairs of (is thrown away, is bad)."""
    num_hits = sum(thrown and bad for thrown, bad in verdicts)
    num_thrown, num_bad = (sum(column) for column in zip(*verdicts, strict=True))
    return Quality(num_hits / num_thrown, num_hits / num_bad)


def is_rejected(sample: Sample, *reasons: str) -> bool:
    return str(sample.rejected_because).startswith(reasons)


def test_judging_lowers_the_share_of_wrong_samples_and_keeps_the_right_ones(
    tables: Tables,
) -> None:
    without, judged = tables.share_wrong(tables.unjudged), tables.share_wrong(tables.judged)
    assert without > 0.1
    assert judged < without / 3, (without, judged)
    rights = [
        sum(s.is_kept and tables.is_right(s) for s in table)
        for table in (tables.judged, tables.unjudged)
    ]
    assert rights[0] >= 0.7 * rights[1], rights


def test_the_faithfulness_judge_finds_wrong_pairs(tables: Tables) -> None:
    pairs = [s for s in tables.judged if s.branch == "knowledge" and s.answer]
    verdicts = [(is_rejected(s, "judge: not faithful"), not tables.is_right(s)) for s in pairs]
    quality = quality_of(verdicts)
    assert quality.recall > 0.9, quality
    assert quality.precision > 0.7, quality


def test_the_answer_judge_finds_wrong_answers(tables: Tables) -> None:
    answered = [s for s in tables.judged if s.branch != "knowledge" and s.answer]
    verdicts = [(is_rejected(s, "judge: answer"), not tables.is_right(s)) for s in answered]
    quality = quality_of(verdicts)
    assert quality.recall > 0.9, quality
    assert quality.precision > 0.7, quality


def test_no_request_for_harm_is_kept(tables: Tables) -> None:
    asked = [s for s in tables.judged if is_unsafe(s.question)]
    assert len(asked) > 15
    assert [s.question for s in asked if s.is_kept] == []


def test_what_is_thrown_away_as_a_duplicate_was_there_before(tables: Tables) -> None:
    seen = {(leaf.path, s.question, s.answer) for leaf in tables.leaves for s in leaf.seeds}
    verdicts = []
    for sample in tables.unjudged:
        if is_rejected(sample, "format"):
            continue
        content = (sample.leaf, sample.question, sample.answer)
        # One basket's question is asked of another, too: that is no duplicate.
        if sample.context is None or sample.branch == "knowledge":
            verdicts.append((is_rejected(sample, "duplicate"), content in seen))
            seen.add(content)
    quality = quality_of(verdicts)
    assert quality.recall == 1.0, quality
    assert quality.precision > 0.95, quality
