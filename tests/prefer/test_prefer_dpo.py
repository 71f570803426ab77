import json
import math

import pytest
import torch
from kto import KTO
from safetensors.torch import load_file
from toy_models import BAD, GOOD, ask, prompt, tiny_student

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.prefer.candidates import RoundContext
from feldspar.prefer.methods import METHODS
from feldspar.prefer.methods.dpo import PreferencePairs
from feldspar.prefer.methods.method import TuningRow
from feldspar.prefer.picks import survey
from feldspar.prefer.tuning import tune
from feldspar.progress import SILENT
from feldspar.records import Candidate, Conversation, Message
from feldspar.student.fit import fit
from feldspar.student.model import base_checkpoint, load_student, save_checkpoint
from feldspar.student.token_rows import tokenise
from feldspar.student.training.forward import ForwardPass
from feldspar.student.training.objective import StepScorer
from feldspar.student.training.process_group import SINGLE_PROCESS
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings


def conversation(number, answer):
    turns = (Message(role="user", content=ask(number)), Message(role="assistant", content=answer))
    return Conversation(id=str(number), source="toy", messages=turns)


def rows(student, answer):
    conversations = [conversation(n, answer) for n in range(6)]
    return tokenise(student.template, [("toy", conversations)], 128)


@pytest.fixture
def student():
    return tiny_student(3)


def pairs_of(student, here, beta=0.5):
    pairs = PreferencePairs(rows(student, GOOD), rows(student, BAD), beta)
    pairs.prepare(StepScorer(ForwardPass(student), SINGLE_PROCESS, 256), here)
    return pairs


def losses_of(pairs, student, places, scale, **options):
    forward, rows = ForwardPass(student, **options), torch.tensor(places).numpy()
    with forward.ready():
        tensors = forward.to_tensors(pairs.computed(rows))
        losses = pairs.losses(forward, tensors, rows, scale).losses_N
        if losses.requires_grad:
            losses.sum().backward()
    return losses.detach()


def margin(student, index):
    """log p(chosen) - log p(rejected), one sequence at a time."""
    sums = []
    for answer in (GOOD, BAD):
        row = rows(student, answer).row(index)
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        log_probs = student.model(ids).logits[0].log_softmax(-1)
        places = [t for t in range(1, len(row.ids)) if row.mask[t]]
        sums.append(sum(log_probs[t - 1, ids[0, t]] for t in places))
    return sums[0] - sums[1]


@pytest.mark.parametrize("options", [{}, {"packing": False}, {"checkpoint_activations": True}])
def test_the_loss_and_its_gradient_are_those_of_the_formula(student, tmp_path, options):
    pairs, places = pairs_of(student, tmp_path), (0, 3)
    before = [margin(student, i).detach() for i in places]
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    changes = [margin(student, i) - was for i, was in zip(places, before, strict=True)]
    expected = -torch.nn.functional.logsigmoid(0.5 * torch.stack(changes))
    expected.mean().backward()
    weight = student.model.model.layers[0].mlp.up_proj.weight
    gradient, weight.grad = weight.grad.clone(), None
    found = losses_of(pairs, student, places, 0.5, **options)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(weight.grad, gradient, atol=1e-6, rtol=1e-3)


def test_at_the_reference_the_loss_is_log_two_and_it_falls_from_there(student, tmp_path):
    pairs = pairs_of(student, tmp_path)
    with torch.no_grad():
        start = losses_of(pairs, student, range(6), 1.0)
    assert start.tolist() == pytest.approx([math.log(2)] * 6, abs=1e-4)
    schedule = Schedule(
        sources=(SourceRows(name="toy", num_rows=6),), batch_samples=6, num_epochs=8, phase="dpo",
        seed=1,
    )  # fmt: skip
    settings = FitSettings(learning_rate=1e-3)
    fit(student, rows(student, GOOD), schedule, settings, folder=tmp_path, objective=pairs)
    with torch.no_grad():
        end = losses_of(pairs, student, range(6), 1.0)
    assert max(end.tolist()) < 0.5
    told = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert told[-1]["accuracy"] == 1
    assert told[-1]["margin"] > 0.3
    assert told[-1]["loss"] == pytest.approx(
        -math.log(1 / (1 + math.exp(-told[-1]["margin"]))), rel=0.1
    )


def test_the_reference_is_computed_once(student, tmp_path):
    pairs_of(student, tmp_path)
    written = (tmp_path / "reference.json").read_bytes()
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(0.5)
    again = pairs_of(student, tmp_path)
    assert (tmp_path / "reference.json").read_bytes() == written
    with torch.no_grad():
        found = losses_of(again, student, range(2), 1.0)
    assert found.tolist() != pytest.approx([math.log(2)] * 2, abs=1e-3)


def candidate(number, text, reward):
    return Candidate(
        prompt=f"p{number}", draw=0, text=text, ended=True, num_tokens=5, reward=reward
    )


def round_context(method, num_processes=1):
    settings = {"batch_samples": 6, "num_epochs": 3, "learning_rate": 1e-3}
    config = PreferConfig(aligned="a", base="b", **settings)
    return RoundContext(
        # Past the recipe's check, which knows the package's own methods alone.
        config=config.model_copy(update={"method": method}),
        student=StudentConfig(base="tiny", device="cpu", max_length=128),
        train=TrainConfig(), pair=None, reward=None, score=None, seed=1, progress=SILENT,
        num_processes=num_processes,
    )  # fmt: skip


def metrics(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


PROMPTS = {f"p{n}": prompt(n) for n in range(12)}


@pytest.mark.slow
def test_a_round_is_tuned_by_two_processes_as_by_one(student, tmp_path):
    """Through the same door as `feldspar prefer --nproc 2`: losses, margins and weights alike."""
    save_checkpoint(student, tmp_path / "start", phase="sft", step=0)
    start = base_checkpoint(str(tmp_path / "start"))
    pairs = [TuningRow(candidate(n, GOOD, 1.0), candidate(n, BAD, 0.0)) for n in range(12)]
    found = {}
    for num in (1, 2):
        folder = tmp_path / str(num) / "round-1"
        tuned = tune(start, pairs, PROMPTS, folder, round_context("dpo", num))
        found[num] = metrics(folder), load_file(f"{tuned.path}/model.safetensors")
        assert not list(folder.glob("state*"))
    (one, weights), (two, others) = found[1], found[2]
    assert len(one) == len(two) == 6
    assert one[-1]["margin"] > 0.1
    for line, other in zip(one, two, strict=True):
        for name in ("loss", "margin", "accuracy", "grad_norm"):
            assert other[name] == pytest.approx(line[name], rel=1e-3, abs=1e-5)
    for name, tensor in weights.items():
        assert (others[name] - tensor).norm() < 1e-4 * tensor.norm()


def test_another_method_is_one_file(student, tmp_path, monkeypatch):
    """KTO: labelled rows, a loss that needs its step's mean, figures of its own."""
    monkeypatch.setitem(METHODS, "kto", lambda config: KTO())
    save_checkpoint(student, tmp_path / "start", phase="sft", step=0)
    context = round_context("kto")
    drawn = [
        candidate(n, text, reward) for n in range(12) for text, reward in ((GOOD, 1.0), (BAD, 0.0))
    ]
    picks, figures = survey(drawn, context.method, seed=1)
    assert figures.num_picked == 12
    rows = [row for pick in picks for row in pick.tuned]
    folder = tmp_path / "round-1"
    start = base_checkpoint(str(tmp_path / "start"))
    tuned = tune(start, rows, PROMPTS, folder, context)
    told = metrics(folder)
    assert len(told) == 12
    assert told[0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert told[0]["reference_point"] == pytest.approx(0, abs=1e-4)
    assert sum(line["wanted"] * 6 for line in told) == pytest.approx(3 * 12)
    assert told[-1]["loss"] < 0.45
    after = load_student(tuned.path, context.student)
    assert margin(after, 0).item() > margin(student, 0).item() + 0.5
