"""`student.compile = "auto"`: for trainings that are long enough to pay for it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import chats, make_tiny

from feldspar.student import layers
from feldspar.student.token_rows import tokenise
from feldspar.student.training.forward import ForwardPass
from feldspar.student.training.loop import Loop
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.student.training.throughput import LEAST_COMPILED_FLOPS, ModelFlops, pays_to_compile


def test_it_is_told_by_the_operations_of_the_whole_phase() -> None:
    student = make_tiny()
    assert student.compile == "auto"
    lengths, trained = np.full(100, 64), np.full(100, 32, dtype=np.int32)
    num_epochs = LEAST_COMPILED_FLOPS / ModelFlops(student.model).flops(lengths, 3200)
    assert pays_to_compile(student, lengths, trained, 1.01 * num_epochs)
    assert not pays_to_compile(student, lengths, trained, 0.99 * num_epochs)
    elsewhere = replace(student, device=torch.device("cuda"))
    assert not pays_to_compile(elsewhere, lengths, trained, 1.01 * num_epochs)


def test_a_short_training_is_not_compiled(tmp_path: Path) -> None:
    student = make_tiny()
    rows = tokenise(student.template, [("a", chats(8))], 200)
    sources = (SourceRows(name="a", num_rows=8),)
    schedule = Schedule(sources=sources, batch_samples=4, num_epochs=1, phase="p", seed=1)
    loop = Loop(student, rows, schedule, FitSettings(learning_rate=1e-3), tmp_path)
    assert not loop.forward._is_compiled


@pytest.mark.parametrize("is_found", [False, True])
def test_auto_without_a_compiler_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_found: bool
) -> None:
    monkeypatch.setenv("CXX", sys.executable if is_found else "no-such-compiler")
    assert layers.has_compiler() is is_found
    assert not ForwardPass(make_tiny())._is_compiled
    assert not caplog.messages
