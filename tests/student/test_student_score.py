from dataclasses import replace

import pytest
import torch
from tiny import make_tiny
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from feldspar.errors import TrainingError
from feldspar.student.scoring.prefix_attention import (
    PackedTree,
    _attend,
    _attend_plainly,
    _each,
    _side_by_side,
)
from feldspar.student.scoring.score import ContinuationScore, Tree, score_trees


@pytest.fixture(scope="module")
def student():
    return make_tiny()


TREES = [
    Tree(prompt=[5, 9, 11, 40], continuations=[[7, 8], [7], [], [100, 3, 2, 9, 9, 41, 60]]),
    Tree(prompt=[30], continuations=[[12, 13, 14]]),
    Tree(prompt=list(range(2, 90)), continuations=[[4] * 20, [4] * 21, [6]]),
    Tree(prompt=[3, 3], continuations=[]),
]


def plain_score(model, prompt, continuation):
    """One sequence at a time, through transformers alone, in float64 from the logits on."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *continuation]])).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    ids = torch.tensor(continuation, dtype=torch.long)
    total = float(rows.gather(1, ids[:, None]).sum())
    return ContinuationScore(total, len(ids), rows.argmax(-1).tolist() == continuation)


def test_scores_are_those_of_one_sequence_at_a_time(student):
    found = score_trees(student, TREES)
    assert [len(scores) for scores in found] == [4, 1, 3, 0]
    for tree, scores in zip(TREES, found, strict=True):
        for ids, score in zip(tree.continuations, scores, strict=True):
            expected = plain_score(student.model, tree.prompt, ids)
            assert score.total == pytest.approx(expected.total, abs=1e-4 * max(1, len(ids)))
            assert score[1:] == expected[1:]


def test_what_the_model_would_say_is_greedy_until_a_token_is_changed(student):
    prompt, said = [5, 9, 11, 40], []
    for _ in range(5):
        logits = student.model(torch.tensor([[*prompt, *said]])).logits[0, -1]
        said.append(int(logits.argmax()))
    other = [*said[:-1], (said[-1] + 1) % 300]
    (scores,) = score_trees(student, [Tree(prompt, [said, other, []])])
    assert [score.greedy for score in scores] == [True, False, True]


def test_an_empty_prompt_is_refused(student):
    with pytest.raises(TrainingError, match="give it a BOS"):
        score_trees(student, [Tree([], [[1]])])


def test_a_prompt_with_several_continuations_is_computed_once(student):
    seen = []
    hook = student.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompt, continuations = list(range(2, 60)), [[4] * 9, [7], [9] * 30]
    score_trees(student, [Tree([1, 2], [[3, 4], [5]])])  # a model is tried once
    seen.clear()
    score_trees(student, [Tree(prompt, continuations)])
    hook.remove()
    assert seen == [len(prompt) + 8 + 0 + 29]


def test_a_tree_too_large_for_a_pack_is_cut(student, monkeypatch):
    whole = score_trees(student, TREES)
    monkeypatch.setattr("feldspar.student.scoring.score._TOKENS_PER_PACK", 16)
    cut = score_trees(student, TREES)
    for one, other in zip(whole, cut, strict=True):
        assert [s.total for s in other] == pytest.approx([s.total for s in one], abs=1e-4)
        assert [s[1:] for s in other] == [s[1:] for s in one]


def families():
    """Small models of other families, among them one whose attention cannot be replaced."""
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {**sizes, "intermediate_size": 64, "num_key_value_heads": 2}
    gemma = {**wide, "head_dim": 8, "query_pre_attn_scalar": 8}
    yield MistralForCausalLM, MistralConfig(**wide, sliding_window=6)
    yield MistralForCausalLM, MistralConfig(**wide, sliding_window=None)
    yield Gemma2ForCausalLM, Gemma2Config(**gemma, attn_logit_softcapping=1.0, sliding_window=8)
    yield Qwen3ForCausalLM, Qwen3Config(**wide, head_dim=16)
    yield GPT2LMHeadModel, GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4)
    yield BloomForCausalLM, BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)


@pytest.mark.parametrize(("kind", "config"), list(families()))
def test_other_families_score_as_one_sequence_at_a_time(student, kind, config):
    torch.manual_seed(3)
    model = kind(config).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    other = replace(student, model=model)
    for tree, scores in zip(TREES, score_trees(other, TREES), strict=True):
        for ids, score in zip(tree.continuations, scores, strict=True):
            expected = plain_score(model, tree.prompt, ids)
            assert score.total == pytest.approx(expected.total, abs=1e-4 * max(1, len(ids)))


def test_a_model_computed_in_bfloat16_stays_within_its_rounding(student):
    half = replace(student, model=make_tiny().model.to(torch.bfloat16), dtype=torch.bfloat16)
    exact = [s for scores in score_trees(student, TREES) for s in scores]
    found = [s for scores in score_trees(half, TREES) for s in scores]
    for one, other in zip(exact, found, strict=True):
        # Eight bits of mantissa at logits of about 10 are steps of 1/16.
        assert other.total == pytest.approx(one.total, abs=0.06 * max(1, one.num_tokens))


def test_wherever_the_fast_kernel_is_not_the_plain_one_gives_the_same():
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    for causal in (True, False):
        fast = _attend(query, key, value, 0.3, causal=causal)
        plain = _attend_plainly(
            query, *(t.repeat_interleave(2, 1) for t in (key, value)), 0.3, causal
        )
        torch.testing.assert_close(fast.out, plain.out)
        torch.testing.assert_close(fast.lse, plain.lse)


@pytest.mark.parametrize("num_keys", [1, 4])
def test_continuations_are_attended_to_the_same_one_by_one_and_side_by_side(num_keys):
    torch.manual_seed(1)
    lengths = (3, 1, 7, 1)
    block = PackedTree(0, 5, lengths, torch.device("cpu"))
    rest = [torch.randn(1, heads, sum(lengths), 8) for heads in (4, num_keys, num_keys)]
    ways = [way(block, rest, 0.3) for way in (_each, _side_by_side)]
    torch.testing.assert_close(*ways, atol=1e-6, rtol=1e-6)
