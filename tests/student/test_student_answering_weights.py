"""Weights of models that only answer: another layout and dtype, the same answers."""

from copy import deepcopy
from dataclasses import replace

import torch
from tiny import CHAT, make_tiny

from feldspar.student.answering_weights import blocked_product, hold_to_answer
from feldspar.student.inference.engine import Engine
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student


def held(student: Student) -> Student:
    model = deepcopy(student.model)
    hold_to_answer(model, student.dtype)
    return replace(student, model=model)


def test_float32_weights_stay_as_they_are() -> None:
    student = make_tiny(dtype="float32")
    hold_to_answer(student.model, student.dtype)
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    assert blocked_product(student.model.lm_head) is None


def test_a_low_model_holds_low_weights_and_float32_rotations() -> None:
    student = held(make_tiny(dtype="bfloat16"))
    assert {p.dtype for p in student.model.parameters()} == {torch.bfloat16}
    assert student.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_blocked_products_are_those_of_plain_layers() -> None:
    student = make_tiny(dtype="bfloat16")
    plain = deepcopy(student.model.lm_head).to(torch.bfloat16)
    answering = held(student)
    inputs = torch.randn(7, 32).to(torch.bfloat16)
    with torch.inference_mode():
        logits = answering.head.logits(inputs)
        torch.testing.assert_close(logits, plain(inputs).float(), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(
            answering.model.lm_head(inputs.float()).float(), logits, rtol=0, atol=0
        )


def test_held_weights_give_what_cast_ones_give() -> None:
    student = make_tiny(dtype="bfloat16")
    answering = held(student)
    ids = torch.tensor([[5, 9, 40, 41, 77, 200, 12]])
    with torch.inference_mode(), student.computing():
        cast, kept = student.hidden_states(ids), answering.hidden_states(ids)
    assert (cast - kept).float().norm() <= 5e-2 * cast.float().norm()


def test_a_low_model_draws_from_the_cache_of_its_own() -> None:
    student = held(make_tiny(dtype="bfloat16"))
    # None would be the slow way, in which rows are computed in groups that began together.
    assert Engine(student)._cache is not None
    [[answer]] = sample_answers(student, [CHAT[:1]], keys=["a"], max_new_tokens=6, seed=0)
    assert 0 < answer.num_tokens <= 6
