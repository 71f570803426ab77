"""Objectives: what a step's loss is of its rows, and what is told of it."""

import json

import numpy as np
import pytest
import torch
from step_mean import StepMean
from tiny import chats, make_tiny

from feldspar.errors import TrainingError
from feldspar.student.fit import fit
from feldspar.student.token_rows import tokenise
from feldspar.student.training.loop import Loop
from feldspar.student.training.objective import CrossEntropy, name_of_kind, objective_of
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.student.training.signals import Stops

NUM_ROWS = 24


@pytest.fixture
def rows():
    return tokenise(make_tiny().template, [("a", chats(NUM_ROWS))], 200)


def schedule(batch_samples, epochs=1):
    return Schedule(
        sources=(SourceRows(name="a", num_rows=NUM_ROWS),),
        batch_samples=batch_samples,
        num_epochs=epochs,
        phase="p",
        seed=1,
    )


def lines(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def plain_sums(student, rows):
    """Log-probabilities of rows through the plain model, one at a time."""
    sums = []
    for index in range(len(rows)):
        ids, mask = rows.row(index)
        ids = torch.from_numpy(ids.astype(np.int64))
        log_probs = student.model(ids[None]).logits[0, :-1].log_softmax(-1)
        own = log_probs.gather(1, ids[1:, None])[:, 0]
        sums.append(own[torch.from_numpy(mask[1:])].sum())
    return torch.stack(sums)


@pytest.mark.parametrize("budget", [60, 100_000])
def test_an_objective_sees_its_step_before_it_is_cut(rows, budget, tmp_path):
    """However many micro-batches a step is cut into, its mean is that of all its rows."""
    student = make_tiny()
    sums = plain_sums(student, rows)
    expected = -torch.nn.functional.logsigmoid(0.1 * (sums - sums.detach().mean())).mean()
    expected.backward()
    gradient = torch.cat([p.grad.flatten() for p in student.model.parameters()])
    student.model.zero_grad(set_to_none=True)
    settings = FitSettings(learning_rate=0.0, tokens_per_micro_batch=budget)
    loop = Loop(
        student, rows, schedule(NUM_ROWS), settings, tmp_path, objective=StepMean(rows, 0.1)
    )
    step = loop._begin(loop.schedule.step(0))
    totals = loop._gradients(step, Stops())
    found = torch.cat([p.grad.flatten() for p in student.model.parameters()])
    assert (found - gradient).norm() / gradient.norm() < 1e-4
    assert float(totals[0]) / NUM_ROWS == pytest.approx(expected.item(), rel=1e-5)
    assert float(totals[1]) / NUM_ROWS == pytest.approx(sums.mean().item(), rel=1e-5)


def test_what_an_objective_tells_goes_to_the_metrics(rows, tmp_path):
    student = make_tiny()
    objective = StepMean(rows, 0.1)
    settings = FitSettings(learning_rate=1e-3)
    fit(student, rows, schedule(8, epochs=3), settings, folder=tmp_path, objective=objective)
    told = lines(tmp_path)
    assert len(told) == 9
    assert all(line["mean"] < 0 for line in told)
    assert told[-1]["loss"] != told[0]["loss"]
    assert told[0]["supervised_tokens"] == 8


def test_another_process_makes_the_same_objective_of_its_parts(rows):
    for objective in (CrossEntropy(rows), StepMean(rows, 0.3)):
        made = objective_of(name_of_kind(objective), rows, objective.parts())
        assert type(made) is type(objective)
        assert made.key == objective.key


def test_an_objective_that_is_not_there_is_named(rows):
    parts = StepMean(rows, 0.3).parts()
    with pytest.raises(TrainingError, match=r"gone:Kind is not found in this process.*PYTHONPATH"):
        objective_of("gone:Kind", rows, parts)


def test_a_state_is_gone_on_from_after_the_cure_for_a_full_memory(rows, tmp_path):
    """What changes memory, and the result by rounding alone: the steps that were done stand."""

    def loop(**changes):
        settings = FitSettings(**({"learning_rate": 1e-3} | changes))
        return Loop(make_tiny(), rows, schedule(8), settings, tmp_path)

    first = loop()
    first.resume()
    first.do_step(Stops())
    first.save()
    for cure in (
        {"tokens_per_micro_batch": 64},
        {"activation_checkpointing": "always"},
        {"packing": False},
    ):
        again = loop(**cure)
        again.resume()
        assert again.step == 1
        for ours, theirs in zip(
            again.student.model.parameters(), first.student.model.parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    other = loop(learning_rate=2e-3)
    other.resume()
    assert other.step == 0
