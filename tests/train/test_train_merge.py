"""Merged weights: which weight is chosen, what is left on disk, and going on after a kill."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_base import CONFIG, STUDENT, FakeScore, phase, save_base, source

from feldspar.config import MergeConfig
from feldspar.records import Checkpoint, Interval
from feldspar.stats.intervals import Difference
from feldspar.steps import Workspace
from feldspar.student.model import load_student, save_checkpoint
from feldspar.train.merge import MergeCandidate, choose_weight, merge_trained
from feldspar.train.phases import train_phases
from feldspar.train.select import costs_more_than_it_taught


def values(num_right: int, num_items: int = 100) -> tuple[float, ...]:
    return tuple(float(i < num_right) for i in range(num_items))


def candidates(**marks: tuple[int, int]) -> list[MergeCandidate]:
    """By name the weight in hundredths: items right of 100, learned and kept."""
    return [
        MergeCandidate(
            key="k",
            weight=int(name.removeprefix("w")) / 100,
            digest=name,
            learned=values(learned),
            kept=values(kept),
        )
        for name, (learned, kept) in marks.items()
    ]


def test_the_least_weight_that_has_learned_as_much_is_taken():
    choice = choose_weight(candidates(w100=(98, 85), w90=(98, 91), w80=(92, 95)), min_items=100)
    assert choice.candidate.weight == 0.9
    assert "learned 0.980 over 100 items" in choice.reason
    assert "kept 0.910 over 100, +0.060 [" in choice.reason


def test_of_those_that_have_learned_as_much_the_one_that_keeps_most_counts():
    # Between far weights something may be lost that both ends have.
    choice = choose_weight(candidates(w100=(90, 80), w70=(90, 95), w50=(90, 60)), min_items=100)
    assert choice.candidate.weight == 0.7


def test_a_loss_within_noise_is_taken_where_more_is_kept_beyond_it():
    def weight(learned: int, kept: int) -> float:
        found = candidates(w100=(98, 80), w90=(learned, kept))
        return choose_weight(found, min_items=100).candidate.weight

    # Three of a hundred are noise, six are none; six more that are kept are none either.
    assert weight(95, 86) == 0.9
    assert weight(95, 85) == 1.0
    assert weight(92, 99) == 1.0


def test_one_item_less_is_as_good_and_two_are_not():
    assert choose_weight(candidates(w100=(98, 0), w90=(97, 0)), min_items=9).candidate.weight == 0.9
    assert choose_weight(candidates(w100=(98, 0), w90=(96, 0)), min_items=9).candidate.weight == 1


def test_without_exams_of_what_is_kept_the_learned_decide():
    found = [replace(c, kept=()) for c in candidates(w100=(98, 0), w50=(98, 0))]
    choice = choose_weight(found, min_items=100)
    assert choice.candidate.weight == 0.5
    assert "no exam asks for what is to be kept" in choice.reason


def test_too_few_items_choose_nothing_and_one_weight_is_no_choice():
    found = candidates(w100=(98, 85), w50=(98, 99))
    choice = choose_weight(found, min_items=101)
    assert choice.candidate.weight == 1
    assert "100 items to choose by, fewer than the 101" in choice.reason
    assert choose_weight(found[1:], min_items=101).candidate.weight == 0.5


class ByWeight(FakeScore):
    """Marks a model by how far its last norm is on the way from 1 to 2: so many are right."""

    def __init__(self, key: str, accuracy, num_items: int = 200) -> None:
        super().__init__(lambda name, step: 0.0, num_items)
        self.key, self.of_weight = key, accuracy

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        norm = load_file(f"{checkpoint.path}/model.safetensors")["model.norm.weight"]
        weight = round(float(norm.mean()) - 1, 4)
        self.asked.append((checkpoint.phase, weight))
        num_right = round(self.of_weight(weight) * self.num_items)
        return {f"{i:03d}": float(i < num_right) for i in range(self.num_items)}


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    base = save_base(tmp_path / "base")
    student = load_student(base.path, STUDENT)
    with torch.no_grad():
        for tensor in student.model.parameters():
            tensor += 1
    return base, save_checkpoint(student, tmp_path / "end", phase="skills", step=7)


def merged(ends, here: Path, **more) -> Checkpoint:
    settings = {
        "learned": ByWeight("learned", lambda w: min(1.0, w + 0.2)),
        "kept": ByWeight("kept", lambda w: 1 - w / 2),
        "min_selection_items": 100,
    }
    config = more.pop("config", MergeConfig())
    (found,) = merge_trained(Workspace(folder=here), *ends, config, **(settings | more))
    return found


def lines(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_the_chosen_model_alone_stays_with_the_curve_beside_it(ends, tmp_path):
    here = tmp_path / "merged"
    found = merged(ends, here)
    assert found.phase == "merged"
    assert sorted(p.name for p in here.iterdir()) == [
        *("merge-candidates.jsonl", "merged", "merges.jsonl")
    ]
    norm = load_file(f"{found.path}/model.safetensors")["model.norm.weight"]
    torch.testing.assert_close(norm, torch.full_like(norm, 1.8))
    (line,) = lines(here / "merges.jsonl")
    assert (line["weight"], line["path"], line["phase"]) == (0.8, "merged", "merged")
    curve = line["curve"]
    assert [p["weight"] for p in curve] == [0, 0.5, 0.7, 0.8, 0.9, 1]
    assert [p["learned"][0] for p in curve] == pytest.approx([0.2, 0.7, 0.9, 1, 1, 1])
    assert [p["kept"][0] for p in curve] == pytest.approx([1, 0.75, 0.65, 0.6, 0.55, 0.5])
    assert curve[3]["kept_to_whole"][0] == pytest.approx(0.1)
    assert curve[3]["learned"][2] == 200


def test_where_all_of_the_change_is_kept_nothing_is_written_twice(ends, tmp_path):
    here = tmp_path / "merged"
    found = merged(ends, here, learned=ByWeight("learned", lambda w: w))
    assert (found.path, found.digest) == (ends[1].path, ends[1].digest)
    assert not (here / "merged").exists()


@pytest.mark.slow
def test_a_killed_merging_goes_on_from_the_weights_that_were_examined(ends, tmp_path):
    class Dies(ByWeight):
        def values(self, checkpoint):
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().values(checkpoint)

    here = tmp_path / "merged"
    with pytest.raises(KeyboardInterrupt):
        merged(ends, here, learned=Dies("learned", lambda w: min(1.0, w + 0.2)))
    again = ByWeight("learned", lambda w: min(1.0, w + 0.2))
    found = merged(ends, here, learned=again)
    assert [weight for _, weight in again.asked] == [0.8, 0.9, 1.0]
    assert found.digest == merged(ends, tmp_path / "whole").digest
    done = ByWeight("learned", lambda w: 0.0)
    assert merged(ends, here, learned=done) == found
    assert not done.asked


@pytest.mark.slow
def test_each_phase_starts_from_the_merged_one_before(tmp_path):
    base = save_base(tmp_path / "base")
    config = CONFIG.model_copy(
        update={"merge": MergeConfig(weights=(0.5,), after="each-phase", start="phase-start")}
    )
    score = FakeScore(lambda name, step: 0.5)
    planned = [phase("one", source(tmp_path, "a", 40)), phase("two", source(tmp_path, "b", 40))]
    phases, trainings = zip(*planned, strict=True)
    here = tmp_path / "trained"
    one, two = train_phases(
        Workspace(folder=here), base, phases, trainings, config, student=STUDENT,
        scores={"exams": score}, kept=FakeScore(lambda name, step: 0.5), min_selection_items=100,
        seed=1,
    )  # fmt: skip
    assert Path(one.path) == here / "1-one" / "merged"
    assert Path(two.path) == here / "2-two" / "merged"
    chosen = [here / line["path"] for line in lines(here / "selections.jsonl")]
    name = "model.layers.0.mlp.up_proj.weight"
    start, end, middle = (
        load_file(f"{path}/model.safetensors")[name] for path in (base.path, chosen[0], one.path)
    )
    torch.testing.assert_close(middle, (start + end) / 2)
    assert [line["phase"] for line in lines(here / "merges.jsonl")] == ["one", "two"]


@pytest.mark.slow
def test_a_phase_that_taught_nothing_and_cost_much_is_told(tmp_path, caplog):
    base = save_base(tmp_path / "base")
    planned = [phase("one", source(tmp_path, "a", 40))]
    phases, trainings = zip(*planned, strict=True)
    trained = train_phases(
        Workspace(folder=tmp_path / "t"), base, phases, trainings, CONFIG, student=STUDENT,
        scores={"exams": FakeScore(lambda name, step: 0.5)},
        kept=FakeScore(lambda name, step: 0.9 if name == "base" else 0.6),
        min_selection_items=100, seed=1,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        list(trained)
    assert "phase one taught nothing beyond noise (+0.000 [" in caplog.text
    assert "cost what was to be kept (-0.300 [" in caplog.text
    (line,) = lines(tmp_path / "t" / "selections.jsonl")
    assert line["kept"][0] == pytest.approx(-0.3)


def test_a_phase_that_taught_or_cost_nothing_passes():
    up = Difference(0.2, Interval(0.1, 0.3), 100)
    none, down = (
        Difference(0.0, Interval(-0.1, 0.1), 100),
        Difference(-0.2, Interval(-0.3, -0.1), 9),
    )
    assert costs_more_than_it_taught(none, down)
    assert not costs_more_than_it_taught(up, down)
    assert not costs_more_than_it_taught(none, none)
    assert not costs_more_than_it_taught(none, None)
