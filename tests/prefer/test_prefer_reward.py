import math
import shutil
from pathlib import Path

import pytest
import torch
from toy_models import save_foreign_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import PreferConfig, StudentConfig
from feldspar.errors import RecipeError, TrainingError
from feldspar.prefer.reward import (
    SpreadModel,
    find_pair,
    free_bytes,
    load_copies,
    load_scorer,
    log_ratio,
    score_answers,
)
from feldspar.records import Message
from feldspar.student.model_sizes import num_weights
from feldspar.student.scoring.log_probs import (
    AnswerLogProb,
    AnswerRow,
    answer_log_probs,
    answer_trees,
)

STUDENT = StudentConfig(base="tiny")
QUESTION = (Message(role="user", content="How is the stone number 0?"),)


def pair_of(toy, **changes):
    return find_pair(PreferConfig(**{"aligned": toy["aligned"], "base": toy["base"], **changes}))


def plain_log_prob(path, answer, ended, template):
    """One sequence at a time, in float32, through transformers alone; the aligned model's turns."""
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    speaker = AutoTokenizer.from_pretrained(template["aligned"])
    chat = [{"role": m.role, "content": m.content} for m in QUESTION]
    prompt = speaker.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    answer_ids += [tokenizer.eos_token_id] * ended
    with torch.inference_mode():
        logits = model(torch.tensor([prompt_ids + answer_ids])).logits[0].double()
    log_probs = logits.log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(answer_ids) - 1)
    total = sum(float(log_probs[at, token]) for at, token in zip(places, answer_ids, strict=True))
    return total, len(answer_ids)


@pytest.mark.parametrize(("dtype", "nats_a_token"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_the_reward_is_the_sum_of_log_ratios_of_a_plain_computation(toy, dtype, nats_a_token):
    pair, student = pair_of(toy), STUDENT.model_copy(update={"dtype": dtype})
    answers = [("It is lovely.", True), ("It is dreadful.", True), (" It is", False), ("", True)]
    rows = [AnswerRow(messages=QUESTION, answer=a, ended=e) for a, e in answers]
    scores = {}
    for role in ("aligned", "base"):
        scores[role] = answer_log_probs(load_scorer(getattr(pair, role), pair, student), rows)
    for index, (answer, ended) in enumerate(answers):
        by_aligned, num_tokens = plain_log_prob(toy["aligned"], answer, ended, toy)
        by_base, _ = plain_log_prob(toy["base"], answer, ended, toy)
        found = log_ratio(scores["aligned"][index], scores["base"][index], "sum")
        bound = nats_a_token * max(1, num_tokens)
        assert found == pytest.approx(by_aligned - by_base, abs=bound)
        assert scores["aligned"][index].num_tokens == num_tokens


def test_a_model_on_several_devices_finds_what_it_does_on_one(toy):
    pair = pair_of(toy)
    rows = [
        AnswerRow((Message(role="user", content=f"How is the stone number {n}?"),), answer, ended)
        for n in range(5)
        for answer, ended in (("It is lovely.", True), (" It is", False), ("", False))
    ]
    devices = [torch.device("cpu")] * 2
    spread = SpreadModel(load_copies(pair.aligned, pair, STUDENT, devices))
    alone = score_answers(load_scorer(pair.aligned, pair, STUDENT), rows)
    found = score_answers(spread, rows)
    assert [f.num_tokens for f in found] == [a.num_tokens for a in alone]
    assert [f.total for f in found] == pytest.approx([a.total for a in alone], abs=1e-4)
    long = (Message(role="user", content="How is the stone? " * 60),)
    with pytest.raises(TrainingError, match="reads 256 tokens"):
        score_answers(spread, [AnswerRow(long, "It is lovely.")])


def test_the_reward_prefers_what_the_aligned_model_was_taught(toy):
    pair = pair_of(toy)
    rows = [AnswerRow(QUESTION, text) for text in ("It is lovely.", "It is dreadful.")]
    aligned, base = (
        answer_log_probs(load_scorer(model, pair, STUDENT), rows)
        for model in (pair.aligned, pair.base)
    )
    good, bad = (log_ratio(a, b, "sum") for a, b in zip(aligned, base, strict=True))
    assert good > 0 > bad


def test_the_stop_token_counts_only_when_the_answer_ended(toy):
    pair = pair_of(toy)
    scorer = load_scorer(pair.aligned, pair, STUDENT)
    rows = [AnswerRow(QUESTION, "It is lovely.", ended=ended) for ended in (True, False)]
    ended, cut = answer_log_probs(scorer, rows)
    assert ended.num_tokens == cut.num_tokens + 1
    assert ended.total < cut.total


def test_a_mean_is_per_token_of_each_model():
    aligned, base = AnswerLogProb(-3.0, 3), AnswerLogProb(-8.0, 4)
    assert log_ratio(aligned, base, "sum") == 5.0
    assert log_ratio(aligned, base, "mean") == 1.0
    assert math.isfinite(log_ratio(AnswerLogProb(0.0, 0), AnswerLogProb(0.0, 0), "mean"))


def test_a_scorer_has_the_vocabulary_its_model_was_saved_with(toy):
    pair = pair_of(toy)
    saved = AutoModelForCausalLM.from_pretrained(toy["base"]).get_output_embeddings().weight.shape
    assert load_scorer(pair.base, pair, STUDENT).model.get_output_embeddings().weight.shape == saved


def test_a_base_without_a_template_is_spoken_to_as_the_aligned_model_is(toy, tmp_path):
    bare = shutil.copytree(toy["base"], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    rows = [AnswerRow(QUESTION, "It is lovely.")]
    whole, stripped = (pair_of(toy), pair_of(toy, base=str(bare)))
    expected = answer_log_probs(load_scorer(whole.base, whole, STUDENT), rows)
    assert answer_log_probs(load_scorer(stripped.base, stripped, STUDENT), rows) == expected


def test_a_base_with_another_tokenizer_scores_its_own_tokens_of_the_same_text(toy, tmp_path):
    save_foreign_model(tmp_path)
    pair = pair_of(toy, base=str(tmp_path))
    rows = [AnswerRow(QUESTION, "It is lovely.")]
    (found,) = answer_log_probs(load_scorer(pair.base, pair, STUDENT), rows)
    total, num_tokens = plain_log_prob(str(tmp_path), "It is lovely.", ended=True, template=toy)
    assert found.num_tokens == num_tokens == len("It is lovely.") + 1
    assert found.total == pytest.approx(total, abs=1e-4 * num_tokens)


def test_one_model_twice_or_none_is_refused(toy, tmp_path):
    with pytest.raises(RecipeError, match="are the same model"):
        pair_of(toy, base=toy["aligned"])
    copied = shutil.copytree(toy["aligned"], tmp_path / "copy")
    with pytest.raises(RecipeError, match="every reward would be 0"):
        pair_of(toy, base=str(copied))
    with pytest.raises(TrainingError, match=r"prefer.base: .*no such model directory; the reward"):
        pair_of(toy, base=str(tmp_path / "gone"))


def test_an_aligned_model_without_a_template_is_refused(toy, tmp_path):
    bare = shutil.copytree(toy["aligned"], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    pair = pair_of(toy, aligned=str(bare))
    with pytest.raises(TrainingError, match="has no chat template, so there is no telling"):
        load_scorer(pair.aligned, pair, STUDENT)


@pytest.mark.parametrize(
    "answer", ["", " It is", "It is", "\nIt", "|>", "user|>", "<|user|>", "  "]
)
def test_prompt_and_answer_meet_without_a_seam(toy, answer):
    """The prompt's ids never change with the answer, and no character of it is lost or added."""
    pair = pair_of(toy)
    scorer = load_scorer(pair.aligned, pair, STUDENT)
    (tree,) = answer_trees(scorer, [AnswerRow(QUESTION, answer, ended=False)])
    prompt = scorer.template.render_prompt(QUESTION)
    assert tree.prompt == prompt
    decode = scorer.tokenizer.decode
    assert decode([*prompt, *tree.continuations[0]]) == decode(prompt) + answer


def test_where_a_joint_text_would_merge_over_the_boundary_the_answer_keeps_its_tokens(
    toy, tmp_path
):
    """A template may end in a space that the answer's first word would swallow: cut at the prompt's
    length, the ids of the joint text would lose it."""
    spaced = shutil.copytree(toy["aligned"], tmp_path / "spaced")
    template = (spaced / "chat_template.jinja").read_text()
    (spaced / "chat_template.jinja").write_text(template.replace("<|assistant|>\\n", "Say: "))
    tokenizer = AutoTokenizer.from_pretrained(spaced)
    joint = tokenizer("Say: is", add_special_tokens=False)["input_ids"]
    apart = tokenizer("Say: ", add_special_tokens=False)["input_ids"]
    assert joint[: len(apart)] != apart
    pair = pair_of(toy, aligned=str(spaced))
    scorer = load_scorer(pair.aligned, pair, STUDENT)
    (tree,) = answer_trees(scorer, [AnswerRow(QUESTION, "is", ended=False)])
    assert scorer.tokenizer.decode(tree.prompt).endswith("Say: ")
    assert scorer.tokenizer.decode(tree.continuations[0]) == "is"
    (found,) = score_answers(scorer, [AnswerRow(QUESTION, "is", ended=False)])
    assert found.num_tokens == len(tree.continuations[0]) > 0


def test_nothing_is_cut_what_is_too_long_is_refused(toy):
    pair = pair_of(toy)
    scorer = load_scorer(pair.aligned, pair, STUDENT)
    long = (Message(role="user", content="How is the stone? " * 60),)
    with pytest.raises(TrainingError, match=r"reads 256 tokens, .* lower prefer.max_new_tokens"):
        score_answers(scorer, [AnswerRow(long, "It is lovely.")])


def test_a_text_the_tokenizer_cannot_write_is_refused(toy, tmp_path):
    save_foreign_model(tmp_path, without="y")
    pair = pair_of(toy, base=str(tmp_path))
    scorer = load_scorer(pair.base, pair, STUDENT)
    assert score_answers(scorer, [AnswerRow(QUESTION, "It is good.")])
    with pytest.raises(TrainingError, match=r"cannot write the answer 'It is lovely.'"):
        score_answers(scorer, [AnswerRow(QUESTION, "It is lovely.")])


def test_a_model_that_does_not_fit_into_memory_is_refused_with_what_would_do(toy, monkeypatch):
    pair = pair_of(toy)
    needed = 4 * num_weights(Path(toy["aligned"]))
    monkeypatch.setattr("feldspar.prefer.reward.free_bytes", lambda device: needed // 2)
    with pytest.raises(TrainingError, match=r'student.dtype = "bfloat16" would do'):
        load_scorer(pair.aligned, pair, STUDENT)
    monkeypatch.setattr("feldspar.prefer.reward.free_bytes", lambda device: needed // 4)
    with pytest.raises(TrainingError, match=r"a machine with .* free would do"):
        load_scorer(pair.aligned, pair, STUDENT)


def test_the_memory_that_is_free_is_known_here():
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 1 << 20
