"""Packed rows, low precision and recomputation compute what they should."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import chats, make_tiny, make_tokenizer
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

from feldspar.config import StudentConfig, TrainConfig
from feldspar.errors import TrainingError
from feldspar.student import attention
from feldspar.student import lm_head as heads
from feldspar.student.fit import fit
from feldspar.student.lm_head import Head, cross_entropy, score_targets
from feldspar.student.model import Student, make_student
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.forward import ForwardPass, check_embeddings, check_packing
from feldspar.student.training.packing import pack, packed_batches, shared_beginning
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings


def gradient(student: Student, rows: TokenRows, order: list[int], **options: bool) -> torch.Tensor:
    """Of the mean loss of all rows at once, in the given order."""
    forward = ForwardPass(student, **options)
    student.model.zero_grad(set_to_none=True)
    with forward.ready():
        tensors = forward.to_tensors([rows.row(i) for i in order])
        torch.autograd.backward(forward.losses(tensors, 1 / len(order)).sum())
    return torch.cat([p.grad.flatten() for p in student.model.parameters()])


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def rows_of(student: Student, num: int = 24) -> TokenRows:
    return tokenise(student.template, [("a", chats(num))], 200)


def run(student: Student, here: Path, **settings: object) -> list[dict]:
    rows = rows_of(student, 64)
    sources = (SourceRows(name="a", num_rows=len(rows)),)
    schedule = Schedule(sources=sources, batch_samples=16, num_epochs=8, phase="p", seed=1)
    fit(student, rows, schedule, FitSettings(learning_rate=1e-2, **settings), folder=here)
    return [json.loads(text) for text in (here / "metrics.jsonl").read_text().splitlines()]


def make_mistral(window: int) -> Student:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        initializer_range=0.2,
    )
    return make_student(
        MistralForCausalLM(config), tokenizer, StudentConfig(base="tiny", device="cpu")
    )


@pytest.mark.parametrize("window", [0, 7, 500])
def test_packed_rows_are_computed_as_padded_ones(window):
    student = make_mistral(window) if window else make_tiny()
    rows = rows_of(student)
    assert rows.lengths.max() > 7
    order = list(range(len(rows)))
    padded = gradient(student, rows, order, packing=False)
    for shuffled in (order, order[::-1], order[5:] + order[:5]):
        assert apart(gradient(student, rows, shuffled, packing=True), padded) < 1e-5


def test_the_gradient_of_low_precision_is_that_of_full():
    rows = rows_of(make_tiny())
    order = list(range(len(rows)))
    exact = gradient(make_tiny(), rows, order)
    low = gradient(make_tiny(dtype="bfloat16"), rows, order)
    assert torch.nn.functional.cosine_similarity(exact, low, dim=0) > 0.999


def test_rows_that_are_looked_up_have_a_gradient_of_the_same_bits(monkeypatch):
    rows = rows_of(make_tiny())
    order = list(range(len(rows)))
    sparse = gradient(make_tiny(), rows, order)
    layer = torch.nn.Embedding
    monkeypatch.setattr(
        layer, "sparse", property(lambda self: False, lambda self, value: None), False
    )
    assert torch.equal(sparse, gradient(make_tiny(), rows, order))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_micro_batches_add_to_one_gradient(dtype, monkeypatch):
    """Also that of the head, which is added as its logits are there, chunk by chunk."""
    student = make_tiny(dtype=dtype)
    rows = rows_of(student)
    order = list(range(len(rows)))
    whole = gradient(student, rows, order)
    monkeypatch.setattr(heads, "_SLOPE_ELEMENTS", 1)
    monkeypatch.setattr(heads, "_MATMUL_ROWS", 7)
    forward = ForwardPass(student)
    student.model.zero_grad(set_to_none=True)
    with forward.ready():
        for part in (order[:9], order[9:]):
            tensors = forward.to_tensors([rows.row(i) for i in part])
            torch.autograd.backward(forward.losses(tensors, 1 / len(order)).sum())
    parts = torch.cat([p.grad.flatten() for p in student.model.parameters()])
    assert apart(parts, whole) < (1e-5 if dtype == "float32" else 2e-2)
    assert not student.model.get_input_embeddings().sparse


def test_rows_are_packed_whole_within_the_budget():
    lengths = np.array([5, 90, 3, 40, 40, 200, 7])
    groups = packed_batches(np.arange(7) + 10, lengths, 100)
    assert sorted(np.concatenate(groups)) == list(range(10, 17))
    sums = [int(lengths[group - 10].sum()) for group in groups]
    assert all(total <= 100 or len(group) == 1 for total, group in zip(sums, groups, strict=True))
    assert len(groups) == 3


def test_what_is_predicted_lies_where_it_was_packed():
    student = make_tiny()
    rows = [rows_of(student).row(i) for i in (3, 1, 8)]
    packed = pack([r.ids for r in rows], [r.mask for r in rows])
    ends = np.cumsum(packed.lengths_S)
    assert packed.places_T[ends - 1].tolist() == [len(r.ids) - 2 for r in rows]
    for number, row in enumerate(rows):
        mine = packed.rows_N == number
        assert packed.targets_N[mine].tolist() == row.ids[row.mask].tolist()
        before = row.ids[:-1][row.mask[1:]].tolist()
        assert packed.ids_T[packed.positions_N[mine]].tolist() == before


rows_of_tokens = st.lists(
    st.lists(st.integers(0, 2), min_size=2, max_size=14).map(
        lambda ids: [7, 8, 9, 4][: len(ids)] + ids
    ),
    min_size=1,
    max_size=9,
)


@settings(deadline=None)
@given(rows_of_tokens, st.integers(0, 14), st.randoms(use_true_random=False))
def test_rows_that_share_a_beginning_can_be_told_apart_again(rows, longest, dice):
    ids = [np.array(row, dtype=np.int32) for row in rows]
    masks = [np.array([dice.random() < 0.5 for _ in row]) for row in rows]
    masks[0][-1] = True
    packed = pack(ids, masks, longest_sharing=longest)
    assert packed.lengths_S.sum() == len(packed.ids_T) == len(packed.places_T)
    parts = np.split(packed.ids_T, np.cumsum(packed.lengths_S)[:-1])
    places = np.split(packed.places_T, np.cumsum(packed.lengths_S)[:-1])
    begin, sharing = [], packed.shares_S
    if packed.num_shared:
        begin, parts, places = parts[0].tolist(), parts[1:], places[1:]
        assert not sharing[0]
        sharing = sharing[1:]
        assert sum(sharing) > 1
    for row, part, place, shares in zip(ids, parts, places, sharing, strict=True):
        assert len(part) > 0
        whole = begin + part.tolist() if shares else part.tolist()
        assert whole == row[:-1].tolist()
        assert not shares or len(whole) <= longest
        assert place.tolist() == list(range(len(whole) - len(part), len(whole)))
    # Each trained token is predicted from the token before it.
    for number, (row, mask) in enumerate(zip(ids, masks, strict=True)):
        mine = packed.rows_N == number
        assert packed.targets_N[mine].tolist() == row[1:][mask[1:]].tolist()
        positions = packed.positions_N[mine]
        assert packed.ids_T[positions].tolist() == row[:-1][mask[1:]].tolist()
        assert packed.places_T[positions].tolist() == np.flatnonzero(mask[1:]).tolist()


def test_the_beginning_that_saves_the_most_is_shared():
    chat, text = [1, 2, 3, 4, 5, 6], [1, 9, 9, 9]
    rows = [[*chat, n, 50 + n] for n in range(10, 15)] + [[*text, n] for n in range(3)]
    begin = shared_beginning([np.array(row, dtype=np.int32) for row in rows], 100)
    # Five rows share six tokens; all eight would share one.
    assert (begin.length, begin.rows_R.tolist()) == (6, [True] * 5 + [False] * 3)
    few = [np.arange(100, dtype=np.int32) + n * (np.arange(100) > 1) for n in range(5)]
    assert shared_beginning(few, 100).length == 0


@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_a_shared_beginning_gives_the_same_gradient(checkpoint_activations):
    """Rows of a chat begin alike; what is computed once has the gradient of all of them."""
    student = make_tiny(dtype="bfloat16")
    rows = rows_of(student)
    order = list(range(len(rows)))
    forward = ForwardPass(student)
    tensors = forward.to_tensors([rows.row(i) for i in order])
    assert tensors.ids_BT.numel() < 0.95 * tensors.num_tokens
    shared = gradient(student, rows, order, checkpoint_activations=checkpoint_activations)
    exact = gradient(make_tiny(dtype="float32"), rows, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForwardPass, "longest_sharing", lambda self, ids: 0)
        apiece = gradient(student, rows, order)
    # Neither is nearer to the exact one but by rounding.
    assert apart(shared, exact) < 1.5 * apart(apiece, exact) < 0.05


def test_a_model_that_leaks_across_packed_rows_is_refused(tmp_path):
    def leaking(module, query, key, value, attention_mask, scaling=None, **more):
        output = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return output.transpose(1, 2), None

    student = make_tiny()
    check_packing(student)
    AttentionInterface.register(attention.NAME, leaking)
    try:
        with pytest.raises(TrainingError, match=r"packed rows apart.*train.packing = false"):
            run(student, tmp_path)
        run(student, tmp_path, packing=False)
    finally:
        AttentionInterface.register(attention.NAME, attention.packed_attention)


def test_what_attention_does_not_know_is_refused():
    x = torch.zeros(1, 2, 4, 8)
    where = attention.Boundaries((4,), torch.tensor([0, 4], dtype=torch.int32))
    with pytest.raises(TrainingError, match="softcap"):
        attention.packed_attention(None, x, x, x, None, boundaries=where, softcap=30.0)
    with pytest.raises(TrainingError, match="boundaries"):
        attention.packed_attention(None, x, x, x, None)


def test_activations_computed_again_give_the_same_gradient():
    student = make_tiny()
    rows = rows_of(student)
    order = list(range(len(rows)))
    kept = gradient(student, rows, order)
    assert torch.equal(gradient(student, rows, order, checkpoint_activations=True), kept)
    layer = student.model.base_model.layers[0]
    assert "forward" not in vars(layer)
    assert not layer.training
    assert not layer.gradient_checkpointing


def test_recomputation_keeps_less(tmp_path):
    student = make_tiny()
    rows = rows_of(student)
    saved = []
    for is_on in (False, True):
        sizes = []
        forward = ForwardPass(student, checkpoint_activations=is_on)
        with (
            forward.ready(),
            torch.autograd.graph.saved_tensors_hooks(
                lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
            ),
        ):
            forward.losses(forward.to_tensors([rows.row(i) for i in range(8)]), 1.0)
        saved.append(sum(sizes))
    assert saved[1] < 0.5 * saved[0]


@pytest.mark.slow
def test_the_copy_follows_the_weights(tmp_path):
    student = make_tiny(dtype="bfloat16")
    lines = run(student, tmp_path)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    forward = ForwardPass(student)
    with torch.no_grad():
        next(iter(student.model.model.layers[0].parameters())).add_(1.0)
    forward.refresh()
    for low, weight in zip(forward.model.parameters(), student.model.parameters(), strict=True):
        assert torch.equal(low, weight.to(low.dtype))
        assert weight.dtype == torch.float32


@pytest.mark.slow
def test_moments_in_bfloat16_learn_as_well_and_are_resumed(tmp_path):
    exact = run(make_tiny(), tmp_path / "exact")
    low = run(make_tiny(), tmp_path / "low", optimizer_states="bfloat16")
    assert low[-1]["loss"] == pytest.approx(exact[-1]["loss"], abs=0.1)
    assert low[-1]["loss"] < 0.3 * low[0]["loss"]
    with pytest.raises(ValueError, match="betas"):
        TrainConfig(optimizer_states="bfloat16", betas=(0.9, 0.999))


@pytest.mark.slow
def test_metrics_say_where_the_time_went(tmp_path):
    packed = run(make_tiny(), tmp_path / "a")[-1]
    padded = run(make_tiny(), tmp_path / "b", packing=False)[-1]
    assert packed["packing_efficiency"] == 1.0 > padded["packing_efficiency"] > 0.5
    parts = [packed[f"{name}_seconds"] for name in ("data", "forward", "backward")]
    assert 0 < sum(parts) <= packed["seconds"] + 1e-3
    assert 0 < packed["mfu"] < 1


@pytest.mark.parametrize(("scale", "softcap", "bias"), [(1.0, None, False), (0.3, 5.0, True)])
def test_the_heads_gradient_is_that_of_autograd(scale, softcap, bias):
    torch.manual_seed(1)
    hidden = torch.randn(40, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    shift = torch.randn(50, requires_grad=True) if bias else None
    targets = torch.randint(0, 50, (40,))
    head = Head(weight, shift, scale, softcap)
    inputs = [x for x in (hidden, weight, shift) if x is not None]
    losses = cross_entropy(head, hidden, targets, 0.5)
    losses.sum().backward()
    found = [x.grad for x in inputs]
    expected = torch.nn.functional.cross_entropy(head.logits(hidden), targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    for ours, theirs in zip(found, torch.autograd.grad(0.5 * expected.sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("scale", "softcap", "bias"), [(1.0, None, False), (0.3, 5.0, True)])
def test_scores_by_parts_of_the_vocabulary_are_those_of_all_of_it(
    monkeypatch, scale, softcap, bias
):
    monkeypatch.setattr(heads, "_SCORED_ROWS", 17)
    monkeypatch.setattr(heads, "_SCORED_TOKENS", 16)
    monkeypatch.setattr(heads, "_CACHED_ELEMENTS", 80)
    torch.manual_seed(1)
    hidden, weight = 3 * torch.randn(40, 8), torch.randn(50, 8)
    head = Head(weight, torch.randn(50) if bias else None, scale, softcap)
    logits = head.logits(hidden)
    targets = torch.where(torch.arange(40) % 3 == 0, logits.argmax(1), torch.randint(0, 50, (40,)))
    found = score_targets(head, hidden, targets)
    expected = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(found.log_probs_N, expected)
    assert torch.equal(found.is_best_N, targets == logits.argmax(1))


def test_a_model_that_reads_more_than_embeddings_is_refused() -> None:
    """As Gemma 3n does, whose layers have embeddings of their own."""
    student = make_tiny()
    check_embeddings(student)
    read = student.model.model.forward

    def forward(input_ids=None, inputs_embeds=None, **more):
        if input_ids is not None:
            inputs_embeds = 1.5 * student.model.get_input_embeddings()(input_ids)
        return read(inputs_embeds=inputs_embeds, **more)

    student.model.model.forward = forward
    with pytest.raises(TrainingError, match="reads its tokens beside their embeddings"):
        check_embeddings(student)
