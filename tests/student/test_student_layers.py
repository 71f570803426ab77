"""Compiled layers compute what plain ones do, once for all lengths."""

import gc
import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import chats, make_tiny
from torch._dynamo.utils import counters

from feldspar.progress import SILENT
from feldspar.student import layers
from feldspar.student.model import Student
from feldspar.student.scoring.score import Tree, score_trees
from feldspar.student.token_rows import tokenise
from feldspar.student.training.forward import ForwardPass
from feldspar.student.training.loop import Loop
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

pytestmark = [
    pytest.mark.slow,
    # Of torch's own compiler: it hides them only where they are no errors.
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),
]

PICKED = (range(5), range(7), [3], range(20), range(30, 33))
"""Rows of micro-batches; of one row alone, too."""


def gradients(student: Student, **options: bool) -> list[torch.Tensor]:
    """Of each micro-batch by itself."""
    rows = tokenise(student.template, [("a", chats(40))], 200)
    forward = ForwardPass(student, **options)
    forward.warm_up()
    found = []
    for indices in PICKED:
        with forward.ready():
            tensors = forward.to_tensors([rows.row(i) for i in indices])
            torch.autograd.backward(forward.losses(tensors, 1.0).sum())
        found.append(torch.cat([p.grad.flatten() for p in student.model.parameters()]))
        student.model.zero_grad(set_to_none=True)
    return found


def worst(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((f - e).norm() / e.norm()) for f, e in pairs)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_layers_give_the_same_gradient_at_all_lengths(checkpointed):
    expected = gradients(make_tiny())
    student = make_tiny(compile=True)
    before = counters["stats"]["unique_graphs"]
    gradients(student, checkpoint_activations=checkpointed)
    once = counters["stats"]["unique_graphs"]
    found = gradients(student, checkpoint_activations=checkpointed)
    assert counters["stats"]["unique_graphs"] == once <= before + 6
    assert 0 < worst(found, expected) < 1e-5
    assert not any("forward" in vars(m) for m in student.model.modules())
    assert all(m._compiled_call_impl is None for m in student.model.modules())


@pytest.mark.parametrize("checkpointed", [False, True])
def test_layers_that_were_compiled_are_let_go(checkpointed):
    student = make_tiny(compile=True)
    gradients(student, checkpoint_activations=checkpointed)
    layer = weakref.ref(layers.layers_of(student.model)[0])
    del student
    gc.collect()
    assert layer() is None


def test_compiled_layers_in_low_precision_and_when_scoring():
    low = gradients(make_tiny(dtype="bfloat16"))
    assert 0 < worst(gradients(make_tiny(dtype="bfloat16", compile=True)), low) < 3e-2
    trees = [Tree((3, 1, 4, 1, 5), ((9, 2, 6), (5, 3), (5,))), Tree((8, 9), ((7, 9), (3,)))]
    plain, fast = (
        [s.total for tree in score_trees(student, trees) for s in tree]
        for student in (make_tiny(), make_tiny(compile=True))
    )
    np.testing.assert_allclose(fast, plain, atol=1e-4)


def test_a_compiled_run_goes_on_bit_for_bit(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, (8,))
    torch._dynamo.reset()
    train(cut, (3,))
    torch._dynamo.reset()
    train(cut, (8,))
    expected, found = (load_file(next(x.glob("state.safetensors*"))) for x in (whole, cut))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def train(here: Path, ends: tuple[int, ...]) -> None:
    student = make_tiny(compile=True)
    rows = tokenise(student.template, [("a", chats(64))], 200)
    source = SourceRows(name="a", num_rows=len(rows))
    schedule = Schedule(sources=(source,), batch_samples=8, num_epochs=1, phase="p", seed=1)
    here.mkdir(exist_ok=True)
    loop = Loop(student, rows, schedule, FitSettings(learning_rate=1e-2), here)
    loop.resume()
    with SILENT.task("train", None, "steps") as task:
        for end in ends:
            loop.run_to(end, task)


def test_without_a_compiler_layers_run_as_they_are(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    layers.can_compile.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = gradients(make_tiny(compile=True))
    layers.can_compile.cache_clear()
    assert "no C++ compiler no-such-compiler" in caplog.text
    assert worst(found, gradients(make_tiny())) == 0
