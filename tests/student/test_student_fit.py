"""The training loop: exact, resumable, and honest about failure."""

import functools
import itertools
import json
import os
import signal
import threading
from pathlib import Path

import killed_fit
import numpy as np
import pytest
import torch
from forked import Forked
from tiny import CHAT, chats, make_tiny

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.records import Conversation, Message
from feldspar.student.fit import fit
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student, load_student
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training import loop as loops
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.student.training.signals import Stops

LIMIT = 20
MODELS = Path(__file__).parents[2].parent / "shared" / "data" / "models"


def one_source(rows: TokenRows, batch: int = 16, epochs: int = 1) -> Schedule:
    sources = tuple(
        SourceRows(name=name, num_rows=num)
        for name, num in zip(rows.source_names, rows.num_rows, strict=True)
    )
    return Schedule(sources=sources, batch_samples=batch, num_epochs=epochs, phase="p", seed=1)


def gradient(
    student: Student, rows: TokenRows, budget: int, here: Path, *, is_turned: bool = False
) -> torch.Tensor:
    """Of all rows, in the order of a step, or the other way round."""
    settings = FitSettings(learning_rate=0.0, tokens_per_micro_batch=budget)
    loop = loops.Loop(student, rows, one_source(rows, batch=len(rows)), settings, here)
    student.model.zero_grad(set_to_none=True)
    indices = loop.schedule.step(0)[:: -1 if is_turned else 1]
    loop._gradients(loop._begin(indices), Stops())
    return torch.cat([p.grad.flatten() for p in student.model.parameters()])


def plain_gradient(student: Student, rows: TokenRows) -> torch.Tensor:
    """One row at a time through the unmodified model, all logits in float64."""
    student.model.zero_grad(set_to_none=True)
    losses = []
    for index in range(len(rows)):
        ids, mask = rows.row(index)
        ids = torch.from_numpy(ids.astype(np.int64))
        logits = student.model(ids[None]).logits[0, :-1].double()
        loss = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        losses.append(loss[torch.from_numpy(mask[1:])])
    torch.cat(losses).mean().backward()
    return torch.cat([p.grad.flatten() for p in student.model.parameters()])


def test_the_gradient_does_not_depend_on_packing(tmp_path):
    student = make_tiny()
    rows = tokenise(student.template, [("a", chats(50)), ("b", chats(20, seed=2))], 200)
    expected = plain_gradient(student, rows)
    for budget, is_turned in itertools.product((1, 100, 1000, 100_000), (False, True)):
        found = gradient(student, rows, budget, tmp_path, is_turned=is_turned)
        assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_head_in_chunks_is_the_head_at_once(tmp_path, monkeypatch):
    student = make_tiny()
    rows = tokenise(student.template, [("a", chats(50))], 200)
    whole = gradient(student, rows, 100_000, tmp_path)
    monkeypatch.setattr("feldspar.student.lm_head._CHUNK_ELEMENTS", 7 * 400)
    chunked = gradient(student, rows, 100_000, tmp_path)
    assert (whole - chunked).norm() / whole.norm() < 1e-5


def test_loss_falls_and_the_student_learns_to_stop(tmp_path):
    student = make_tiny()
    rows = tokenise(student.template, [("colours", chats(64))], 200)
    schedule = one_source(rows, batch=16, epochs=25)
    fit(student, rows, schedule, FitSettings(learning_rate=1e-2), folder=tmp_path)
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 101))
    assert lines[-1]["loss"] < 0.1 < 2 < lines[0]["loss"]
    assert lines[0]["sources"]["colours"]["samples"] == 16
    prompt = chats(1)[0].messages[:1]
    ((answer,),) = sample_answers(student, [prompt], keys=["k"], max_new_tokens=20, seed=1)
    assert answer.text == chats(1)[0].messages[1].content
    assert answer.ended


def test_the_loss_is_the_mean_over_supervised_tokens(tmp_path):
    student = make_tiny()
    rows = tokenise(
        student.template,
        [("a", chats(20)), ("b", [Conversation(id="b", source="b", messages=CHAT)])],
        200,
    )
    fit(student, rows, one_source(rows, batch=21), FitSettings(learning_rate=0.0), folder=tmp_path)
    (line,) = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    by_source = line["sources"].values()
    total = sum(s["loss"] * s["supervised_tokens"] for s in by_source)
    assert line["loss"] == pytest.approx(total / line["supervised_tokens"])
    rendered = [student.template.render(c) for c in chats(20)]
    rendered.append(student.template.render(Conversation(id="b", source="b", messages=CHAT)))
    assert line["supervised_tokens"] == sum(int(r.mask.sum()) for r in rendered)
    assert line["total_tokens"] == sum(len(r.ids) for r in rendered)


def test_rows_that_cannot_be_trained_on_are_counted():
    student = make_tiny()
    silent = Conversation(id="s", source="a", messages=(Message(role="user", content="hi"),))
    rows = tokenise(student.template, [("a", [*chats(10), silent]), ("b", chats(5))], LIMIT)
    num_long = [
        sum(len(student.template.render(c).ids) > LIMIT for c in chats(num)) for num in (10, 5)
    ]
    assert 0 < num_long[0] < 10
    assert rows.num_dropped == (num_long[0] + 1, num_long[1])
    assert rows.num_rows == (10 - num_long[0], 5 - num_long[1])
    assert rows.lengths.max() <= LIMIT


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Gives the folder of a run that was not killed, by the format of the optimizer's states."""

    @functools.cache
    def run(optimizer_states):
        here = tmp_path_factory.mktemp(optimizer_states)
        Forked(killed_fit.main, here, None, optimizer_states).succeed()
        return here

    return run


@pytest.mark.parametrize(
    ("kill_at", "optimizer_states"),
    [(0, "float32"), (4, "float32"), (9, "float32"), (9, "bfloat16")],
)
@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, whole_run, kill_at, optimizer_states):
    whole, killed = whole_run(optimizer_states), tmp_path
    dead = Forked(killed_fit.main, killed, kill_at, optimizer_states)
    assert dead.wait() == -signal.SIGKILL, dead.said()
    Forked(killed_fit.main, killed, None, optimizer_states).succeed()
    weights = [folder / "out" / "model.safetensors" for folder in (whole, killed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    steps = [
        json.loads(text)["step"] for text in (killed / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, 17))


@pytest.mark.slow
def test_moments_in_bfloat16_train_to_other_bytes(whole_run):
    """So that the run killed with them has had them."""
    low, high = (
        (whole_run(states) / "out" / "model.safetensors").read_bytes()
        for states in ("bfloat16", "float32")
    )
    assert low != high


def test_sigterm_saves_and_is_passed_on(tmp_path):
    student, plain = make_tiny(), make_tiny()
    rows = tokenise(student.template, [("a", chats(64))], 200)
    schedule, settings = one_source(rows, epochs=100), FitSettings(learning_rate=1e-3)
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        fit(student, rows, schedule, settings, folder=tmp_path)
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    loop = loops.Loop(plain, rows, schedule, settings, tmp_path)
    loop.resume()
    assert 0 < loop.step < schedule.num_steps
    for ours, theirs in zip(plain.model.parameters(), student.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_state_of_another_run_is_not_taken_up(tmp_path):
    student = make_tiny()
    rows = tokenise(student.template, [("a", chats(16))], 200)
    fit(student, rows, one_source(rows), FitSettings(learning_rate=1e-3), folder=tmp_path)
    loop = loops.Loop(
        make_tiny(), rows, one_source(rows), FitSettings(learning_rate=1e-2), tmp_path
    )
    loop.resume()
    assert loop.step == 0


def test_a_loss_that_is_no_number_names_the_last_good_model(tmp_path):
    student = make_tiny()
    rows = tokenise(student.template, [("a", chats(64))], 200)
    settings = FitSettings(learning_rate=1e-3, checkpoint_steps=(2,))

    def spoil(step: int) -> None:
        with torch.no_grad():
            next(student.model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"step 3: the loss is nan.*checkpoint of step 2"):
        fit(student, rows, one_source(rows), settings, folder=tmp_path, on_checkpoint=spoil)


def test_warm_up_counts_earlier_steps():
    settings = FitSettings(learning_rate=1.0, warmup_steps=10, earlier_steps=4)
    rates = [settings.learning_rate_at(step, 100) for step in (0, 4, 5, 99)]
    assert rates == [0.5, 0.9, 1.0, 1.0]
    assert FitSettings(learning_rate=1.0).learning_rate_at(0, 100) == 1.0


def test_a_decay_ends_near_nothing():
    settings = FitSettings(learning_rate=1.0, decay_steps=4)
    rates = [settings.learning_rate_at(step, 10) for step in (5, 6, 9)]
    assert rates == pytest.approx([1.0, 0.8, 0.2])


def test_bfloat16_computes_close_to_float32(tmp_path):
    student, low = make_tiny(), make_tiny(dtype="bfloat16")
    rows = tokenise(student.template, [("a", chats(32))], 200)
    exact, rough = (gradient(s, rows, 4096, tmp_path) for s in (student, low))
    assert next(low.model.parameters()).dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.99


@pytest.mark.slow
@pytest.mark.skipif(not MODELS.is_dir(), reason="no shared models beside the repository")
def test_a_real_small_model_learns(tmp_path):
    path = str(MODELS / "tinystories-656k")
    student = load_student(path, StudentConfig(base=path, device="cpu"))
    rows = tokenise(student.template, [("colours", chats(64))], 200)
    schedule = one_source(rows, batch=16, epochs=15)
    fit(student, rows, schedule, FitSettings(learning_rate=4e-3), folder=tmp_path)
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    prompt = chats(1)[0].messages[:1]
    ((answer,),) = sample_answers(student, [prompt], keys=["k"], max_new_tokens=20, seed=1)
    assert answer.ended
