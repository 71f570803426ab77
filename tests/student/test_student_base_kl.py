"""Holding a student to the base by its likeliest tokens."""

import math

import numpy as np
import pytest
import torch
from tiny import chats, make_tiny

from feldspar.errors import RunError
from feldspar.student.fit import fit
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.base_kl import HeldToBase
from feldspar.student.training.base_top_k import read_top_k, write_top_k
from feldspar.student.training.loop import Loop
from feldspar.student.training.objective import name_of_kind, objective_of
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.student.training.signals import Stops

OWN, HELD = 6, 5
BETA = 0.7


@pytest.fixture
def rows():
    template = make_tiny().template
    every = chats(OWN + HELD)
    return tokenise(template, [("own", every[:OWN]), ("base replay", every[OWN:])], 200)


def vocabulary(student):
    return student.head.weight_VH.shape[0]


def changed(seed=3):
    """A student some way from the base."""
    student = make_tiny()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in student.model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return student


def objective(rows, folder, top_k, new_ids=frozenset()):
    base = make_tiny()
    write_top_k(base, TokenRows([rows.sources[1]]), top_k, folder / "cache")
    return HeldToBase(rows, 1, folder / "cache", beta=BETA, new_ids=new_ids)


def log_probs(student, row):
    """[T - 1, V] of the trained tokens' places, by the plain model."""
    ids = torch.from_numpy(row.ids.astype(np.int64))
    found = student.model(ids[None]).logits[0, :-1].float().log_softmax(-1)
    return found[torch.from_numpy(row.mask[1:].copy())]


def plain_loss(student, rows, top_k, skipped=frozenset()):
    """The same loss written out: (mean loss, mean kl) over all trained tokens."""
    base, total, total_kl = make_tiny(), 0.0, 0.0
    for index in range(len(rows)):
        row = rows.row(index)
        q = log_probs(student, row)
        targets = torch.from_numpy(row.ids[1:][row.mask[1:]].astype(np.int64))
        total = total - q.gather(1, targets[:, None]).sum()
        if rows.source_of[index] == 1:
            with torch.no_grad():
                p, ids = log_probs(base, row).topk(top_k, dim=1)
            q_top = q.gather(1, ids)
            kl = (p.exp() * (p - q_top)).sum(1)
            if top_k < q.shape[1]:
                rest_p, rest_q = (1 - x.exp().sum(1) for x in (p, q_top))
                kl = kl + rest_p * (rest_p.log() - rest_q.log())
            kl = kl[torch.tensor([int(t) not in skipped for t in targets])]
            total, total_kl = total + BETA * kl.sum(), total_kl + kl.sum()
    num = int(rows.trained.sum())
    return total / num, total_kl / num


def plain_kl(*args, **kwargs):
    with torch.no_grad():
        return float(plain_loss(*args, **kwargs)[1])


def whole_schedule(rows, num_epochs):
    named = zip(rows.source_names, rows.num_rows, strict=True)
    return Schedule(
        sources=tuple(SourceRows(name=name, num_rows=num) for name, num in named),
        batch_samples=len(rows),
        num_epochs=num_epochs,
        phase="p",
        seed=1,
    )


def gradients(student, rows, found, tmp_path, budget):
    settings = FitSettings(learning_rate=0.0, tokens_per_micro_batch=budget)
    loop = Loop(student, rows, whole_schedule(rows, 1), settings, tmp_path, objective=found)
    step = loop._begin(loop.schedule.step(0))
    totals = loop._gradients(step, Stops())
    flat = torch.cat([p.grad.flatten() for p in student.model.parameters()])
    return totals / step.num_counted, flat


@pytest.mark.parametrize("top_k", [4, 10_000])
@pytest.mark.parametrize("budget", [60, 100_000])
def test_loss_and_gradient_are_those_of_the_formula(rows, top_k, budget, tmp_path):
    width = min(top_k, vocabulary(make_tiny()))
    student = changed()
    loss, kl = plain_loss(student, rows, width)
    loss.backward()
    expected, expected_kl = loss.detach(), kl.detach()
    wanted = torch.cat([p.grad.flatten() for p in student.model.parameters()])
    student.model.zero_grad(set_to_none=True)
    totals, found = gradients(student, rows, objective(rows, tmp_path, top_k), tmp_path, budget)
    assert float(totals[:2].sum()) == pytest.approx(float(expected), rel=1e-5)
    assert float(totals[2]) == pytest.approx(float(expected_kl), rel=1e-4)
    assert (found - wanted).norm() / wanted.norm() < 1e-4


def test_at_the_base_the_divergence_is_nothing_and_few_tokens_never_say_more(rows, tmp_path):
    student = make_tiny()
    totals, _ = gradients(student, rows, objective(rows, tmp_path / "a", 4), tmp_path, 1000)
    assert float(totals[2]) == pytest.approx(0, abs=1e-5)
    kls = [plain_kl(changed(), rows, k) for k in (1, 4, 16, vocabulary(student))]
    assert kls == sorted(kls)
    assert kls[0] > 0


def test_places_before_tokens_that_the_base_lacks_are_not_held(rows, tmp_path):
    stop = make_tiny().template.stop_id
    student = changed()
    expected = plain_kl(student, rows, 4, skipped={stop})
    everywhere = plain_kl(student, rows, 4)
    held = objective(rows, tmp_path, 4, new_ids=frozenset({stop}))
    totals, _ = gradients(student, rows, held, tmp_path, 1000)
    assert float(totals[2]) == pytest.approx(expected, rel=1e-4)
    assert expected < everywhere


def test_another_process_makes_the_same_objective_of_its_parts(rows, tmp_path):
    first = objective(rows, tmp_path, 4, new_ids=frozenset({2, 5}))
    second = objective_of(name_of_kind(first), rows, first.parts())
    assert second.key == first.key
    one, other = (gradients(changed(), rows, o, tmp_path, 1000)[1] for o in (first, second))
    assert torch.equal(one, other)


def test_mass_of_all_others_is_what_is_left(rows, tmp_path):
    write_top_k(make_tiny(), rows, 4, tmp_path / "cache")
    top = read_top_k(tmp_path / "cache")
    assert len(top.rest_P) == rows.trained.sum()
    total = np.exp(top.log_probs_PK.astype(np.float64)).sum(1) + np.exp(top.rest_P)
    assert total == pytest.approx(np.ones(len(total)), abs=1e-5)
    (tmp_path / "cache" / "ids.i4").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        read_top_k(tmp_path / "cache")


@pytest.mark.slow
def test_a_student_that_is_held_stays_nearer_to_the_base(rows, tmp_path):
    schedule = whole_schedule(rows, 30)
    settings = FitSettings(learning_rate=1e-3, checkpoint_steps=(30,))
    found = []
    for number, held in enumerate((None, replace_beta(objective(rows, tmp_path, 16), 20.0))):
        student = make_tiny()
        fit(student, rows, schedule, settings, folder=tmp_path / str(number), objective=held)
        found.append(plain_kl(student, rows, 16))
    assert found[1] < 0.5 * found[0]
    assert math.isfinite(found[1])


def replace_beta(held, beta):
    held._beta = beta
    return held
