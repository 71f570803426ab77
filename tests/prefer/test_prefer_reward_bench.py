"""RewardBench and RewardBench 2: their layouts, how they count, and a scalar reward model."""

import json
import math

import pytest
import torch
from hub import hub
from pydantic import ValidationError
from toy_models import ask
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.errors import RecipeError, TrainingError
from feldspar.prefer.agree import agree
from feldspar.prefer.candidates import RoundContext, draw_candidates
from feldspar.prefer.pairs import StoredPair, find_pairs, read_pairs
from feldspar.prefer.reward_bench import (
    AVERAGE,
    SECTIONS,
    TIES,
    Rewarded,
    sections,
    share_right,
)
from feldspar.prefer.reward_model import RewardModel
from feldspar.progress import SILENT
from feldspar.records import Candidate, Message, Prompt
from feldspar.runs import read_rows
from feldspar.student.model import base_checkpoint
from feldspar.student.scoring.log_probs import AnswerRow

STUDENT = StudentConfig(base="tiny")
# One row of each benchmark, in its own columns.
REWARD_BENCH = {
    "prompt": "How do I sort a list?",
    "chosen": "Call sorted().",
    "chosen_model": "one",
    "rejected": "You cannot.",
    "rejected_model": "two",
    "subset": "hep-python",
    "id": 1007,
}
REWARD_BENCH_2 = {
    "id": "12",
    "prompt": "Which is a prime?",
    "chosen": ["7"],
    "rejected": ["8", "9", "10"],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["a", "b", "c", "d"],
    "subset": "Math",
    "additional_metadata": {"category": None},
}


def rewarded(chosen, rejected, id_=""):
    pair = StoredPair(
        prompt="?", chosen=["a"] * len(chosen), rejected=["b"] * len(rejected), id=id_
    )
    return Rewarded(pair, [*chosen, *rejected])


def test_both_layouts_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(REWARD_BENCH) + "\n" + json.dumps(REWARD_BENCH_2) + "\n")
    one, four = read_pairs(path)
    assert (one.chosen, one.rejected, one.subset) == (
        ("Call sorted().",),
        ("You cannot.",),
        "hep-python",
    )
    assert four.answers == ("7", "8", "9", "10")


def test_parquet_of_the_hub_is_read_and_of_two_splits_the_filtered_one(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="needs feldspar[parquet]")
    from pyarrow import parquet

    files = {}
    for name, row in (("filtered", REWARD_BENCH), ("raw", REWARD_BENCH | {"subset": "other"})):
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        files[f"data/{name}-00000-of-00001.parquet"] = path.read_bytes()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "right")
    with hub() as played:
        played.add(files, "main")
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        [pair] = find_pairs("someone/pairs")
        assert pair.subset == "hep-python"
        with pytest.raises(RecipeError, match="--pairs someone/pairs@v2: the hub has no such"):
            find_pairs("someone/pairs@v2")


def test_a_row_counts_as_the_benchmarks_count_it():
    assert rewarded([2], [1]).credit == 1
    assert rewarded([1], [1]).credit == 0
    assert rewarded([2], [1, 0, -1]).credit == 1
    assert rewarded([2], [2, 0, -1]).credit == 0.5
    assert rewarded([2], [3, 0, -1]).credit == 0
    assert rewarded([2, 3], [1, 0]).credit == 1
    assert rewarded([2, 0], [1, 0]).credit == 0
    share, interval = share_right([rewarded([2], [1]), rewarded([1], [2])])
    assert share == 0.5
    assert interval.low < 0.5 < interval.high


def test_ties_have_their_own_formula():
    """Two prompts; of the second the right answers lie further apart than above the wrong one."""
    rows = [
        rewarded([5], [1], "ref:1"),
        rewarded([5, 4], [1], "tied:1"),
        rewarded([5], [6], "ref:2"),
        rewarded([9, 2], [1], "tied:2"),
    ]
    share, interval = share_right(rows, is_ties=True)
    margins = (math.tanh(3 / 1 - 1) + math.tanh(-1 / 7 - 1)) / 2
    assert share == pytest.approx(0.3 + 0.3 / 2 + 0.2 / 2 + 0.2 / 2 + 0.01 * margins)
    assert interval.low <= share <= interval.high


def test_sections_weigh_subsets_and_an_average_needs_them_all():
    shares = {subset: 1.0 for weights in SECTIONS.values() for subset in weights}
    shares["math-prm"] = 0.0
    found = {section.name: section for section in sections(shares)}
    assert found["Reasoning"].share == pytest.approx(0.5)
    assert found[AVERAGE].share == pytest.approx(0.875)
    assert found[AVERAGE].missing == ()
    del shares["hep-go"]
    assert sections(shares)[-1].missing == ("hep-go",)
    two = {
        "Factuality": 0.4,
        "Precise IF": 0.2,
        "Math": 0.6,
        "Safety": 0.8,
        "Focus": 1.0,
        TIES: 0.6,
    }
    [average] = sections(two)
    assert (average.benchmark, average.share) == ("RewardBench 2", pytest.approx(0.6))
    assert sections({"mine": 0.5}) == []
    assert sections({"Safety": 0.5}) == []


def reward_model(path, tokenizer_path, num_labels=1):
    """A classifier that likes one token of an answer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=num_labels,
        pad_token_id=0,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.slow
def test_a_scalar_reward_model_stands_beside_the_log_ratio(toy, tmp_path):
    path = reward_model(tmp_path / "model", toy["aligned"])
    answers = ("It is lovely.", "It is dreadful.", "Four.", "Five.")
    asked = (Message(role="user", content=ask(1)),)
    rewards = RewardModel(path, STUDENT).read([AnswerRow(asked, answer) for answer in answers])
    best = rewards.index(max(rewards))
    row = {
        "prompt": ask(1),
        "chosen": [answers[best]],
        "rejected": [a for i, a in enumerate(answers) if i != best],
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    found = agree(
        read_pairs(tmp_path / "pairs.jsonl"),
        PreferConfig(aligned=toy["aligned"], base=toy["base"], reward_model=path),
        student=STUDENT,
        log_folder=tmp_path,
    )
    assert {a.by: a.share for a in found}["reward model"] == 1
    assert len(found) == 4


def test_what_is_no_reward_model_is_refused(toy, tmp_path):
    path = reward_model(tmp_path / "two", toy["aligned"], num_labels=2)
    with pytest.raises(TrainingError, match="it has 2 outputs"):
        RewardModel(path, STUDENT)
    with pytest.raises(TrainingError, match="weights are missing"):
        RewardModel(str(toy["aligned"]), STUDENT)


def test_a_round_is_rewarded_by_the_model_that_the_recipe_chooses(toy, tmp_path):
    path = reward_model(tmp_path / "model", toy["aligned"])
    config = PreferConfig(reward="reward-model", reward_model=path, max_new_tokens=4)
    context = RoundContext(
        config=config, student=STUDENT, train=TrainConfig(), pair=None, seed=1,
        reward=lambda *_: 0.0, score=lambda _: [], progress=SILENT,
    )  # fmt: skip
    asked = Prompt(id="p", source="s", messages=(Message(role="user", content=ask(1)),))
    policy = base_checkpoint(toy["base"])
    file = draw_candidates(policy, [asked], 3, tmp_path / "round", context)
    candidates = list(read_rows(file, Candidate))
    rows = [AnswerRow(asked.messages, c.text, ended=c.ended) for c in candidates]
    assert [c.reward for c in candidates] == pytest.approx(RewardModel(path, STUDENT).read(rows))
    assert not (tmp_path / "round" / "aligned").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reward": "reward-model"}, "needs prefer.reward_model"),
        ({"reward": "reward-model", "reward_model": "m", "aligned": "a"}, "uses no reward pair"),
        ({"aligned": "a"}, "the log ratio needs both"),
    ],
)
def test_a_reward_names_its_models(given, says):
    with pytest.raises(ValidationError, match=says):
        PreferConfig(**given)
