"""The published rows that a run's own are set beside, with how each was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.records import JUDGE_ERRORS, Score


class Column(NamedTuple):
    """A benchmark: what its score is called in a run, and how the published one was measured."""

    exam: str
    title: str
    settings: str
    is_share: bool = True


COLUMNS = (
    Column("mt-bench", "MT-Bench", "GPT-4 of 2023 as judge, 1 to 10, mean of both turns", False),
    Column("mmlu", "MMLU", "5-shot, acc"),
    Column("arc_challenge", "ARC-C", "25-shot, acc_norm"),
    Column("hellaswag", "HellaSwag", "10-shot, acc_norm"),
    Column("winogrande", "Winogrande", "5-shot, acc"),
    Column("gsm8k", "GSM8K", "5-shot, strict match"),
)


class PublishedRow(NamedTuple):
    """Scores in the order of COLUMNS, as printed; empty where none was published."""

    model: str
    alignment: str
    base: str
    teacher: str
    scores: tuple[str, ...]


_LLAMA, _MISTRAL, _MIXTRAL = "Llama-2-13b", "Mistral-7B-v0.1", "Mixtral-8x7B-Instruct"
PUBLISHED_ROWS = (
    PublishedRow(
        "Llama-2-13b-chat-hf",
        "RLHF",
        _LLAMA,
        "Human Annotators",
        ("6.65 a", "54.58", "59.81", "82.52", "75.93", "34.80"),
    ),
    PublishedRow(
        "Orca-2-13b",
        "Progressive Training",
        _LLAMA,
        "GPT-4",
        ("6.15 a", "60.37 a d", "59.73", "79.86", "78.22", "48.22"),
    ),
    PublishedRow(
        "WizardLM-13B-V1.2",
        "Evol-Instruct",
        _LLAMA,
        "GPT-4",
        ("7.20 a", "54.83", "60.24", "82.62", "76.40", "43.75"),
    ),
    PublishedRow(
        "Labradorite-13b",
        "LAB",
        _LLAMA,
        _MIXTRAL,
        ("7.23 c", "58.89", "61.69", "83.15", "79.56", "40.11"),
    ),
    PublishedRow(
        "Mistral-7B-Instruct-v0.1",
        "SFT",
        _MISTRAL,
        "-",
        ("6.84 a", "60.37 d", "63.65", "84.76", "76.80", "41.85"),
    ),
    PublishedRow(
        "zephyr-7b-beta",
        "SFT/DPO",
        _MISTRAL,
        "GPT-4",
        ("7.34 a", "61.07", "63.74", "84.19", "78.06", "34.04"),
    ),
    PublishedRow(
        "Mistral-7B-Instruct-v0.2",
        "SFT",
        _MISTRAL,
        "-",
        ("7.6 b", "60.78", "63.14", "84.88", "77.19", "40.03"),
    ),
    PublishedRow(
        "Merlinite-7b",
        "LAB",
        _MISTRAL,
        _MIXTRAL,
        ("7.66", "64.88", "63.99", "84.37", "78.24", "44.58"),
    ),
    PublishedRow(
        "Merlinite-7b-pt",
        "LAB + RLAIF",
        _MISTRAL,
        _MIXTRAL,
        ("7.96 e", "63.59", "64.50", "84.28", "79.72", "48.67"),
    ),
    PublishedRow(
        "Granite-7b-lab", "LAB", "Granite-7b-base", _MIXTRAL, ("6.69", "51.91", "", "", "", "")
    ),
)
_OTHER_METRICS = (JUDGE_ERRORS, "win rate", "log-likelihood")
"""What no published row gives."""
FOOTNOTES = (
    "a: the LMSYS leaderboard's.",
    "b: MistralAI's release blog.",
    "c: a mean of 4 runs.",
    "d: 60.37 stands twice in the model cards.",
    "e: the best of five runs; their mean is 7.85, the lowest 7.80.",
    "Published shares are per cent, without chat template and without errors; they were measured "
    "with other versions of the harness: its shots, all but MMLU's, and its judge were others.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRow:
    """A run's own scores in the order of COLUMNS, each with half its 95 % interval."""

    model: str
    scores: tuple[str, ...]


def own_rows(scores: Iterable[Score], name: str = "") -> list[OwnRow]:
    """A row for each checkpoint that any of the published benchmarks was run on."""
    wanted = {column.exam: column for column in COLUMNS}
    found = {
        (s.checkpoint, s.exam): s
        for s in scores
        if s.exam in wanted and s.metric not in _OTHER_METRICS
    }
    checkpoints = dict.fromkeys(checkpoint for checkpoint, _ in found)
    return [
        OwnRow(
            model=f"{name}@{checkpoint}" if name else checkpoint,
            scores=tuple(_text(found.get((checkpoint, c.exam)), c) for c in COLUMNS),
        )
        for checkpoint in checkpoints
    ]


def own_settings(scores: Iterable[Score]) -> list[str]:
    """`MMLU: 5-shot, no chat template, lm_eval 0.4.13 (57 items)`, each once."""
    titles = {column.exam: column.title for column in COLUMNS}
    lines = [
        f"{titles[s.exam]}: {s.settings} ({s.num_items} items)"
        for s in scores
        if s.exam in titles and s.metric not in _OTHER_METRICS
    ]
    return list(dict.fromkeys(lines))


def _text(score: Score | None, column: Column) -> str:
    if score is None:
        return ""
    scale = 100 if column.is_share else 1
    half = scale * max(score.value - score.interval.low, score.interval.high - score.value)
    places = 1 if column.is_share else 2
    return f"{scale * score.value:.{places}f}±{half:.{places}f}"


class PublishedReward(NamedTuple):
    """What a log-ratio pair scored on RewardBench, in %, as it was stored or printed."""

    pair: str
    scores: tuple[str, str, str, str]
    """Chat, Chat Hard, Safety, Reasoning; empty where none was told."""
    average: str
    source: str


PUBLISHED_REWARDS = (
    PublishedReward(
        "Mixtral-8x7B-Instruct over Mixtral-8x7B",
        ("95.0", "64.0", "72.6", "78.7"),
        "77.6",
        "allenai/reward-bench-results, average of the four sections",
    ),
    PublishedReward(
        "Qwen1.5-0.5B-Chat over Qwen1.5-0.5B",
        ("", "", "", ""),
        "53.8",
        "allenai/reward-bench-results; 53.3 without its reference",
    ),
    PublishedReward(
        "Hermes-2-Mistral-DPO over OpenHermes-2.5, domain prompts and a router",
        ("", "", "", ""),
        "82.6",
        "arXiv 2411.02481",
    ),
)
"""Subsets have moved by up to .13 between versions of the benchmark: compare by subset."""
