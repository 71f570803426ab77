"""The order of rows: a function of the seed, fair to every source at every step."""

import numpy as np
import pytest

from feldspar.errors import TrainingError
from feldspar.student.counter_rng import key_of, permutation, uniforms
from feldspar.student.training.schedule import Schedule, SourceRows, checkpoint_steps, micro_batches

OWN = SourceRows(name="own", num_rows=700)
FRACTION = SourceRows(name="earlier", num_rows=400, fraction=0.25)
SHARE = SourceRows(name="base", num_rows=150, share=0.2)


def make(*sources: SourceRows, batch: int = 64, epochs: int = 3, seed: int = 1) -> Schedule:
    return Schedule(sources=sources, batch_samples=batch, num_epochs=epochs, phase="p", seed=seed)


def epoch_rows(schedule: Schedule, epoch: int) -> np.ndarray:
    per = schedule.steps_per_epoch
    return np.concatenate([schedule.step(epoch * per + k) for k in range(per)])


def test_every_own_row_comes_once_an_epoch():
    schedule = make(OWN, FRACTION, SHARE)
    for epoch in range(3):
        rows = epoch_rows(schedule, epoch)
        assert sorted(rows[rows < 700]) == list(range(700))


def test_batches_are_full_but_for_an_epochs_last():
    schedule = make(OWN, epochs=2)
    sizes = [len(schedule.step(k)) for k in range(schedule.num_steps)]
    assert sizes == ([64] * 10 + [60]) * 2


def test_replay_has_its_share_in_every_step():
    schedule = make(OWN, FRACTION, SHARE)
    assert schedule.drawn == (700, 100, 200)
    for number in range(schedule.num_steps):
        rows = schedule.step(number)
        parts = np.array([(rows < 700).sum(), ((rows >= 700) & (rows < 1100)).sum()])
        assert np.all(np.abs(parts / len(rows) - [0.7, 0.1]) * len(rows) <= 2)


def test_a_fraction_is_drawn_anew_without_replacement():
    schedule = make(OWN, FRACTION)
    draws = []
    for epoch in range(3):
        rows = epoch_rows(schedule, epoch)
        drawn = rows[rows >= 700]
        assert len(set(drawn)) == len(drawn) == 100
        draws.append(set(drawn.tolist()))
    assert draws[0] != draws[1] != draws[2]


def test_a_share_goes_through_its_whole_source_before_it_repeats():
    schedule = make(OWN, SHARE)
    drawn = np.concatenate([r[r >= 700] for r in (epoch_rows(schedule, e) for e in range(3))])
    counts = np.bincount(drawn - 700, minlength=150)
    assert counts.max() - counts.min() <= 1


def test_order_is_a_function_of_seed_and_phase():
    first, same, other = make(OWN), make(OWN), make(OWN, seed=2)
    assert np.array_equal(first.step(7), same.step(7))
    assert not np.array_equal(first.step(7), other.step(7))


def test_shares_must_leave_room():
    with pytest.raises(TrainingError, match=r"1\.00"):
        make(OWN, SourceRows(name="a", num_rows=9, share=1.0)).num_steps  # noqa: B018


def test_checkpoints_are_even_and_end_every_epoch():
    assert checkpoint_steps(10, 2, 3) == (4, 7, 10, 14, 17, 20)
    assert checkpoint_steps(2, 1, 5) == (1, 2)


def test_micro_batches_hold_every_row_once_within_the_budget():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 300, 500)
    groups = micro_batches(np.arange(500), lengths, 2048)
    assert sorted(np.concatenate(groups)) == list(range(500))
    assert all(len(g) == 1 or lengths[g].max() * len(g) <= 2048 for g in groups)
    real = lengths.sum()
    padded = sum(lengths[g].max() * len(g) for g in groups)
    assert padded < 1.15 * real


def test_a_row_longer_than_the_budget_stands_alone():
    groups = micro_batches(np.arange(3), np.array([10, 5000, 10]), 100)
    assert [g.tolist() for g in groups] == [[1], [0, 2]]


def test_counter_numbers_are_uniform_and_known():
    keys = np.array([key_of(1, str(i)) for i in range(20_000)], dtype=np.uint64)
    numbers = uniforms(keys, 3)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.bincount((numbers * 10).astype(int)).min() > 1800
    assert np.array_equal(uniforms(keys[5:6], 3), numbers[5:6])
    assert sorted(permutation(100, "a")) == list(range(100))


@pytest.mark.slow
@pytest.mark.timeout(10, func_only=True)
def test_an_epoch_of_a_million_rows_is_ordered():
    schedule = make(SourceRows(name="own", num_rows=1_400_000), batch=3840, epochs=1)
    assert sum(len(schedule.step(k)) for k in range(schedule.num_steps)) == 1_400_000
