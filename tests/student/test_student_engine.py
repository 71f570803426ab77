"""The batching engine against the plain model: joins, prompts that are shared, other attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import make_model, make_tiny, make_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from feldspar.config import StudentConfig
from feldspar.records import Message
from feldspar.student.inference.engine import Engine, EngineRow, Request, prompt_log_probs
from feldspar.student.inference.fallback_cache import select_rows
from feldspar.student.inference.sample import sample_answers
from feldspar.student.inference.token_sampler import sample_tokens
from feldspar.student.model import Student, make_student

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def student() -> Student:
    return make_tiny()


def run(engine: Engine, *requests: Request) -> list[EngineRow]:
    ended = [row for row in engine.run(requests) if row.finish]
    return sorted(ended, key=lambda row: (requests.index(row.request), row.draw))


def finish(engine: Engine) -> list[EngineRow]:
    ended = []
    while engine.is_busy:
        ended += [row for row in engine.step() if row.finish]
    return ended


def greedy(student: Student, ids: list[int], num: int) -> list[int]:
    new: list[int] = []
    while len(new) < num and student.template.stop_id not in new:
        with torch.no_grad():
            new.append(int(student.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def prompt_of(length: int, salt: int = 0) -> list[int]:
    return [3 + (7 * i + salt) % 250 for i in range(length)]


def test_generation_is_that_of_transformers(student: Student) -> None:
    ids = student.template.render_prompt([Message(role="user", content="what is red?")])
    theirs = student.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=100,
        do_sample=False,
    )
    (row,) = run(Engine(student), Request(ids=ids, keys=(1,), max_new_tokens=100))
    assert row.ids == theirs[0, len(ids) :].tolist()


@pytest.mark.parametrize("shared", [0, 7, 20])
def test_prompts_that_begin_alike_say_what_they_say_alone(student: Student, shared: int) -> None:
    """One of them is no more than what they share and a token."""
    prompts = [prompt_of(shared) + prompt_of(n, salt=n) for n in (1, 5, 9, 14)]
    requests = [
        Request(ids=ids, keys=(n, 50 + n), max_new_tokens=8) for n, ids in enumerate(prompts)
    ]
    ended = run(Engine(student), *requests)
    for row in ended:
        assert row.ids == greedy(student, list(row.request.ids), 8)
    assert len(ended) == 8


@pytest.mark.slow
def test_requests_that_join_midway_say_what_they_say_alone(student: Student) -> None:
    requests = [
        Request(
            ids=prompt_of(5 + 31 * (i % 3), salt=i),
            keys=[100 * i + draw for draw in range(1 + i % 4)],
            max_new_tokens=6 + 10 * (i % 6),
            temperature=[0.0, 1.0, 0.7][i % 3],
            top_p=[1.0, 0.9][i % 2],
        )
        for i in range(7)
    ]
    alone = [[row.ids for row in run(Engine(student), request)] for request in requests]
    engine = Engine(student)
    together: dict[tuple[int, int], list[int]] = {}
    waiting = list(requests)
    while waiting or engine.is_busy:
        if waiting:
            engine.add(waiting.pop())
        for row in engine.step():
            if row.finish:
                together[requests.index(row.request), row.draw] = row.ids
    found = [[together[i, d] for d in range(len(r.keys))] for i, r in enumerate(requests)]
    assert found == alone


def test_long_prompts_join_until_there_is_no_room(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a pass takes two of them is no reason for others to wait: none but room is."""
    monkeypatch.setattr("feldspar.student.inference.engine._PREFILL_TOKENS", 24)
    engine = Engine(student)
    for number in range(48):
        engine.add(Request(ids=prompt_of(12, number), keys=(number,), max_new_tokens=60))
    # A row that says its stop token makes room for another.
    ended = 0
    for _ in range(24):
        ended += sum(row.finish is not None for row in engine.step())
    assert engine.num_rows + ended == 48
    assert engine.num_rows > 32


def test_the_ways_to_attend_say_the_same(student: Student) -> None:
    def ask(engine: Engine) -> list[list[int]]:
        requests = [
            Request(ids=prompt_of(n), keys=range(3), max_new_tokens=90, temperature=1.0)
            for n in (4, 70, 40)
        ]
        return [row.ids for row in run(engine, *requests)]

    fallback = Engine(student)
    assert fallback._cache is not None
    fallback._cache = None
    assert ask(fallback) == ask(Engine(student))


@pytest.mark.parametrize(
    ("kind", "config", "has_cache"),
    [
        (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=24), True),
        (GemmaForCausalLM, GemmaConfig(**SHAPE), True),
    ],
)
def test_other_families_say_what_the_plain_model_says(kind, config, has_cache) -> None:
    tokenizer = make_tokenizer()
    config.vocab_size = len(tokenizer)
    torch.manual_seed(1)
    student = make_student(kind(config), tokenizer, StudentConfig(base="", device="cpu"))
    engine = Engine(student)
    assert (engine._cache is not None) == has_cache
    for length in (5, 40):
        request = Request(ids=prompt_of(length), keys=(1, 2), max_new_tokens=12)
        for row in run(engine, request):
            assert row.ids == greedy(student, prompt_of(length), 12)


def test_a_request_that_was_cancelled_leaves_the_others_alone(student: Student) -> None:
    first, second, third = (
        Request(ids=prompt_of(9, salt), keys=(salt, salt + 1), max_new_tokens=30, temperature=1.0)
        for salt in (1, 5, 9)
    )
    expected = [row.ids for row in run(Engine(student), second)]
    engine = Engine(student)
    for request in (first, second):
        engine.add(request)
    for _ in range(4):
        engine.step()
    engine.add(third)
    engine.cancel(first)
    engine.cancel(third)
    assert [row.ids for row in finish(engine)] == expected
    assert engine.num_rows == 0
    assert engine.requests == []


def test_stop_texts_and_limits_may_differ_by_prompt(student: Student) -> None:
    prompts = [[Message(role="user", content=text)] for text in ("red", "green", "blue")]
    keys = ["a", "b", "c"]
    free = sample_answers(student, prompts, keys=keys, max_new_tokens=20, seed=1)
    stop = free[1][0].text[3:5]
    cut = sample_answers(
        student, prompts, keys=keys, max_new_tokens=[4, 20, 20], stop=[(), (stop,), ()], seed=1
    )
    assert cut[0][0].num_tokens == 4
    assert not cut[0][0].ended
    assert cut[1][0].text == free[1][0].text.partition(stop)[0]
    assert cut[1][0].ended
    assert cut[2] == free[2]
    ids = [student.template.render_prompt(messages) for messages in prompts]
    assert sample_answers(student, ids, keys=keys, max_new_tokens=20, seed=1) == free


def test_draws_have_the_models_chances_within_the_nucleus() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 600) * 3
    chances = (logits / 0.7).softmax(-1)[0]
    num = 4000
    numbers = (np.arange(num) + 0.5) / num
    for top_p in (1.0, 0.8):
        drawn = (
            sample_tokens(
                logits.expand(num, -1), np.full(num, 0.7), np.full(num, top_p), numbers
            ).bincount(minlength=600)
            / num
        )
        order = chances.argsort(descending=True)
        inside = chances[order].cumsum(0) - chances[order] < top_p
        expected = torch.zeros(600)
        expected[order[inside]] = chances[order[inside]] / chances[order[inside]].sum()
        assert (drawn - expected).abs().max() < 1.5 / num + 1e-6


def test_prompts_are_scored_as_the_plain_model_does(student: Student) -> None:
    ids = prompt_of(30)
    with torch.no_grad():
        expected = student.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found = prompt_log_probs(student, ids, 2)
    for place, score in enumerate(found):
        assert score.log_prob == pytest.approx(expected[place, ids[place + 1]].item(), abs=1e-4)
        assert score.likeliest[0][1] == pytest.approx(expected[place].max().item(), abs=1e-4)


def test_bfloat16_keeps_to_the_plain_model() -> None:
    tokenizer = make_tokenizer()
    config = StudentConfig(base="", device="cpu", dtype="bfloat16")
    student = make_student(make_model(len(tokenizer)), tokenizer, config)
    engine = Engine(student)
    assert engine._cache is not None
    request = Request(ids=prompt_of(20), keys=(1, 2), max_new_tokens=8, num_log_probs=1)
    for row in run(engine, request):
        whole = prompt_log_probs(student, [*prompt_of(20), *row.ids], 0)[-len(row.ids) :]
        apart = [a.log_prob - b.log_prob for a, b in zip(row.log_probs, whole, strict=True)]
        assert max(map(abs, apart)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3}),
        (
            "granitemoehybrid",
            {
                "layer_types": ["mamba", "attention"],
                "shared_intermediate_size": 64,
                "mamba_n_heads": 4,
                "mamba_d_state": 8,
                "mamba_d_head": 16,
                "num_local_experts": 0,
            },
        ),
    ],
)
def test_rows_of_recurrent_layers_end_at_their_own_time(
    kind: str, shape: dict[str, object]
) -> None:
    """Their states are no keys and values, and know no way to be chosen from."""
    config = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4,
        num_key_value_heads=2, **{"num_hidden_layers": 2, **shape},
    )  # fmt: skip
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(1, 64, (3, 6))
    after = torch.randint(1, 64, (3, 1))
    kept = [2, 0, 0]
    with torch.no_grad():
        cache = model.base_model(input_ids=ids, use_cache=True).past_key_values
        select_rows(cache, torch.tensor(kept), 3)
        found = model.base_model(input_ids=after[kept], past_key_values=cache, use_cache=True)
        whole = model.base_model(input_ids=torch.cat([ids, after], dim=1)[kept])
    torch.testing.assert_close(
        found.last_hidden_state[:, -1], whole.last_hidden_state[:, -1], rtol=1e-4, atol=1e-5
    )
