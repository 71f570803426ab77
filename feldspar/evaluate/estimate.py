"""What exams, benchmarks and MT-Bench will cost, before anything is asked. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feldspar.config import BenchmarkConfig, EvaluateConfig, MTBenchConfig
from feldspar.evaluate.general.questions import NUM_WORDINGS, asked_half
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench, temperature_of
from feldspar.records import Estimate
from feldspar.student.template.tokens import LAB
from feldspar.tokens.count import CHARACTERS_PER_TOKEN

NUM_ITEMS = {
    "mmlu": 14_042,
    "arc_challenge": 1_172,
    "hellaswag": 10_042,
    "winogrande": 1_267,
    "gsm8k": 1_319,
}
"""On the hub, scored."""
NUM_TASKS = {"mmlu": 57}
NUM_CHECKPOINTS = 2
"""Before and after."""
NUM_TURNS = 160
"""Of the published MT-Bench."""
NUM_DRAWN_TURNS = 80
"""Of them, in the categories that are not answered greedily."""
PROMPT_TOKENS = 350
"""Of a judge's published prompt with its question, without answers."""
EXAM_TOKENS = 60
"""Of an exam's question with a server's template."""
JUDGMENT_TOKENS = 250
VERDICT_TOKENS = 40


def estimate(
    config: EvaluateConfig, num_leaf_items: int = 0, num_checkpoints: int = NUM_CHECKPOINTS
) -> list[Estimate]:
    """Items of the benchmarks, which ask nobody but the student, and calls to judges.

    `num_leaf_items` of the leaves' exams are reported on, on `num_checkpoints`; at most all of them
    are too long to match.
    """
    found = list(_general(config)) if config.general.enabled else []
    found += _benchmarks(config)
    if config.asks_server("exams") and num_leaf_items:
        found.append(
            Estimate(
                step="served-exams",
                stage="exam-answer",
                calls=num_leaf_items,
                prompt_tokens=num_leaf_items * EXAM_TOKENS,
                completion_tokens=num_leaf_items * config.max_new_tokens,
                note="the leaves' exams, if all answers are as long as max_new_tokens allows",
            )
        )
    if config.mt_bench is not None:
        found += _mt_bench(config.mt_bench, with_server=config.asks_server("mt-bench"))
    if config.long_answers == "judge" and num_leaf_items:
        calls = num_leaf_items * (num_checkpoints + config.asks_server("exams"))
        found.append(
            Estimate(
                step="judged",
                stage="judge-exam",
                calls=calls,
                prompt_tokens=calls * (PROMPT_TOKENS + config.max_new_tokens),
                completion_tokens=calls * VERDICT_TOKENS,
                note="if all items of the leaves' exams are too long to match",
            )
        )
    return found


def num_items(config: BenchmarkConfig) -> int | None:
    """Items that a benchmark scores on one model; None where that is known to the hub alone."""
    known = NUM_ITEMS.get(config.task)
    if config.data is not None:
        paths = [Path(config.data) / f"{name}.jsonl" for name in _scored(config)]
        path = next((path for path in paths if path.is_file()), None)
        known = None if path is None else _num_lines(path)
    if known is None or config.limit is None:
        return known
    return min(known, config.limit * NUM_TASKS.get(config.task, 1))


def _general(config: EvaluateConfig) -> Iterator[Estimate]:
    """Of the half that is reported: both wordings, on base and result, then the base's own answers
    and what each finds of them. A base that was asked before is found in the cache."""
    items = asked_half("report", config.general.items_per_kind)
    longest, num_asked = config.general.max_new_tokens, NUM_WORDINGS * len(items)
    num_characters = sum(len(question) for item in items for question in item.ask)
    asked_tokens = num_characters // CHARACTERS_PER_TOKEN
    num_answers = NUM_CHECKPOINTS * num_asked + len(items)
    read = NUM_CHECKPOINTS * 2 * (asked_tokens + num_asked * LAB.tokens_per_turn)
    yield Estimate(
        step="general",
        prompt_tokens=read,
        completion_tokens=num_answers * longest,
        note=f"{len(items)} general questions in two wordings, {NUM_CHECKPOINTS} times: up to "
        f"{num_answers * longest:,} tokens to write",
    )
    if config.asks_server("exams"):
        yield Estimate(
            step="general",
            stage="general-answer",
            calls=num_asked,
            prompt_tokens=asked_tokens + num_asked * EXAM_TOKENS,
            completion_tokens=num_asked * longest,
        )


def _benchmarks(config: EvaluateConfig) -> Iterator[Estimate]:
    for benchmark in config.benchmark:
        found = num_items(benchmark)
        times = NUM_CHECKPOINTS + config.asks_server(benchmark.task)
        items = "an unknown number of items" if found is None else f"{found:,} items"
        note = f"{benchmark.task}: {items}, {times} times"
        yield Estimate(step="benchmarks", note=note)


def _mt_bench(config: MTBenchConfig, *, with_server: bool) -> Iterator[Estimate]:
    """Of judging, and of a served model's own answers."""
    num_turns, asked_tokens, form_tokens = NUM_TURNS, PROMPT_TOKENS, 0
    num_drawn = NUM_DRAWN_TURNS
    if config.data is not None:
        bench = read_mt_bench(find_mt_bench(config))
        num_turns = sum(len(question.turns) for question in bench.questions)
        num_drawn = sum(len(q.turns) for q in bench.questions if temperature_of(q) > 0)
        texts = [text for q in bench.questions for text in (*q.turns, *q.references)]
        form = bench.prompts.get("single-v1" if config.mode == "single" else "pair-v2")
        asked_tokens = -(-sum(map(len, texts)) // max(1, num_turns) // CHARACTERS_PER_TOKEN)
        form_tokens = len("".join(form)) // CHARACTERS_PER_TOKEN if form else 0
    note = "if all answers are as long as max_new_tokens allows"
    judged, answers = NUM_CHECKPOINTS + with_server, 1
    if config.mode == "pairwise":
        # In both orders; the base is not set against itself.
        judged, answers = 2 * (judged - (config.baseline is None)), 2
    calls = num_turns * config.num_runs * judged
    # A second turn shows the first answer too.
    shown = 3 * answers * config.max_new_tokens // 2
    yield Estimate(
        step="mt-bench",
        stage="judge-mt-bench",
        calls=calls,
        prompt_tokens=calls * (asked_tokens + form_tokens + shown),
        completion_tokens=calls * JUDGMENT_TOKENS,
        note=note,
    )
    if with_server:
        # What is answered greedily is answered once.
        calls = num_turns + num_drawn * (config.num_runs - 1)
        yield Estimate(
            step="mt-bench",
            stage="mt-bench-answer",
            calls=calls,
            prompt_tokens=calls * (asked_tokens + config.max_new_tokens // 2),
            completion_tokens=calls * config.max_new_tokens,
            note=note,
        )


def _scored(config: BenchmarkConfig) -> tuple[str, ...]:
    return ("validation",) if config.split == "validation" else ("test", "validation")


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
