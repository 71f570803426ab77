"""What the published benchmarks and MT-Bench will cost, before anything is asked. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feldspar.config import BenchmarkConfig, EvaluateConfig, MTBenchConfig
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
from feldspar.records import Estimate

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
PROMPT_TOKENS = 350
"""Of a judge's published prompt with its question, without answers."""
JUDGMENT_TOKENS = 250
CHARACTERS_PER_TOKEN = 4


def estimate(config: EvaluateConfig) -> list[Estimate]:
    """Items of the benchmarks, which ask nobody but the student, and MT-Bench's judge calls."""
    return [*_benchmarks(config), *([_mt_bench(config.mt_bench)] if config.mt_bench else [])]


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


def _benchmarks(config: EvaluateConfig) -> Iterator[Estimate]:
    for benchmark in config.benchmark:
        found = num_items(benchmark)
        times = NUM_CHECKPOINTS + (config.server is not None)
        items = "an unknown number of items" if found is None else f"{found:,} items"
        note = f"{benchmark.task}: {items}, {times} times"
        yield Estimate(step="benchmarks", note=note)


def _mt_bench(config: MTBenchConfig) -> Estimate:
    num_turns, prompt_tokens = NUM_TURNS, PROMPT_TOKENS
    if config.data is not None:
        bench = read_mt_bench(find_mt_bench(config))
        num_turns = sum(len(question.turns) for question in bench.questions)
        texts = [text for q in bench.questions for text in (*q.turns, *q.references)]
        form = bench.prompts.get("single-v1" if config.mode == "single" else "pair-v2")
        prompt_tokens = -(-sum(map(len, texts)) // max(1, num_turns) // CHARACTERS_PER_TOKEN)
        prompt_tokens += len("".join(form)) // CHARACTERS_PER_TOKEN if form else 0
    judged = NUM_CHECKPOINTS
    answers = 1
    if config.mode == "pairwise":
        # In both orders; the base is not set against itself.
        judged, answers = 2 * (1 if config.baseline is None else NUM_CHECKPOINTS), 2
    calls = num_turns * config.num_runs * judged
    # A second turn shows the first answer too.
    shown = 3 * answers * config.max_new_tokens // 2
    return Estimate(
        step="mt-bench",
        stage="judge-mt-bench",
        calls=calls,
        prompt_tokens=calls * (prompt_tokens + shown),
        completion_tokens=calls * JUDGMENT_TOKENS,
        note="if all answers are as long as max_new_tokens allows",
    )


def _scored(config: BenchmarkConfig) -> tuple[str, ...]:
    return ("validation",) if config.split == "validation" else ("test", "validation")


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
