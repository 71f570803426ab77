"""How long and how much memory it takes to mix, tokenise and schedule: rows a second, peak RSS.

    python benchmarks/mixing.py --tokenizer FOLDER [--rows 1400000] [--threads N]
                                [--out benchmarks/mixing_WHAT_DATE.md]

FOLDER holds a real tokenizer.json. The samples are synthetic: words of the tokenizer's own
vocabulary, lognormal lengths around `--words`. Stages run one after another, each in a
process of its own, so that every peak is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from feldspar.config import MixConfig, TrainConfig
from feldspar.mix.phases import mix_phases
from feldspar.records import Phase, Sample
from feldspar.runs import read_rows, write_rows
from feldspar.steps import Workspace
from feldspar.tokens.count import TokenCounter

BRANCHES = ("knowledge", "foundational", "compositional")
STAGES = ("mix", "tokenise", "again", "schedule")


class Samples:
    """What the step `samples` of a run gives: read from disk each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Sample]:
        return read_rows(self.path, Sample)


def write(folder: Path, num_rows: int, tokenizer: Path, num_words: int) -> None:
    """The samples have to be somewhere."""
    vocabulary = _vocabulary(tokenizer)
    words = [w.strip("▁Ġ") for w in vocabulary if w.strip("▁Ġ").isalpha()]
    write_rows(folder / "samples.jsonl.zst", _samples(words, num_rows, num_words))


def _samples(words: list[str], num_rows: int, num_words: int) -> Iterator[Sample]:
    rng = random.Random(1)
    for number in range(num_rows):
        length = max(6, min(900, round(num_words * rng.lognormvariate(0, 0.8))))
        text = rng.choices(words, k=length)
        cut = max(4, length // 3)
        branch = BRANCHES[number % 2 and 1 + number % 4 // 2]
        yield Sample(
            id=f"{number:016x}",
            leaf=f"{branch}/leaf-{number % 500}",
            branch=branch,
            question=" ".join(text[:cut]) + "?",
            answer=" ".join(text[cut:]) + ".",
        )


def stage_mix(folder: Path, num_rows: int, tokenizer: Path) -> dict[str, float]:
    """The cards' three phases: split by length, written once, replayed by reference."""
    phases = mix_phases(
        Workspace(folder=folder / "phases"),
        Samples(folder / "samples.jsonl.zst"),
        MixConfig(),
        phases=TrainConfig().phase,
        data={},
        base_replay=None,
        counter=TokenCounter(tokenizer),
    )
    write_rows(folder / "phases.jsonl.zst", phases)
    return {"rows": num_rows}


def stage_tokenise(folder: Path, num_rows: int, tokenizer: Path) -> dict[str, float]:
    """Every phase's rows and replays, as training asks for them."""
    from transformers import AutoTokenizer

    from feldspar.records import Conversation
    from feldspar.student.template.layout import lab_turns
    from feldspar.student.template.render import Template
    from feldspar.student.template.tokens import LAB
    from feldspar.student.token_rows import Kept, tokenise_once

    given = AutoTokenizer.from_pretrained(tokenizer)
    special = [*LAB.trained, LAB.pad]
    given.add_special_tokens({"additional_special_tokens": special})
    template = Template(
        given,
        layout=lab_turns,
        stop_id=given.convert_tokens_to_ids(LAB.stop),
        pad_id=given.convert_tokens_to_ids(LAB.pad),
        bos_id=None,
    )
    tokens = 0
    for phase in read_rows(folder / "phases.jsonl.zst", Phase):
        sources = [
            Kept(
                s.name,
                read_rows(Path(s.path), Conversation),
                s.digest,
                Path(s.path).parent / "tokens",
            )
            for s in phase.sources
        ]
        rows = tokenise_once(template, sources, 2048)
        tokens += int(rows.lengths[rows.source_of == 0].sum())
    return {"rows": num_rows, "tokens": tokens}


stage_again = stage_tokenise


def stage_schedule(folder: Path, num_rows: int, tokenizer: Path) -> dict[str, float]:
    """Every step of one epoch over all rows, with micro-batches by their lengths."""
    import numpy as np

    from feldspar.student.training.schedule import Schedule, SourceRows, micro_batches

    lengths = np.random.default_rng(1).lognormal(4.8, 0.8, num_rows).astype(np.int64).clip(8, 2048)
    sources = (SourceRows(name="all", num_rows=num_rows),)
    schedule = Schedule(sources=sources, batch_samples=3840, num_epochs=1, phase="skills", seed=1)
    groups = 0
    seen = np.zeros(num_rows, dtype=np.int8)
    for step in range(schedule.num_steps):
        indices = schedule.step(step)
        seen[indices] += 1
        groups += len(micro_batches(indices, lengths[indices], 16384))
    assert (seen == 1).all()
    return {"rows": num_rows, "steps": schedule.num_steps, "micro_batches": groups}


def run_stage(name: str, folder: Path, num_rows: int, tokenizer: Path) -> None:
    """In a process of its own; its figures as one line of JSON, its peak memory among them."""
    started, cpu = time.monotonic(), time.process_time()
    figures = globals()[f"stage_{name}"](folder, num_rows, tokenizer)
    figures |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    # KiB on Linux. Pages of mapped files that were looked at count in it.
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_400_000)
    parser.add_argument("--words", type=int, default=80, help="of the median sample")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="kept, for another try")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        run_stage(arguments.worker, arguments.folder, arguments.rows, arguments.tokenizer)
        return
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "samples.jsonl.zst").exists():
        write(folder, arguments.rows, arguments.tokenizer, arguments.words)
    results = {name: _measure(name, folder, arguments) for name in arguments.stages}
    page = _page(results, arguments)
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    if arguments.folder is None:
        shutil.rmtree(folder)


def _measure(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder)]
    command += ["--rows", str(arguments.rows), "--tokenizer", str(arguments.tokenizer)]
    threads = {"RAYON_NUM_THREADS": str(arguments.threads), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | threads
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return figures


def _page(results: dict[str, dict[str, float]], arguments: argparse.Namespace) -> str:
    lines = ["| stage | seconds | CPU seconds | rows a second | peak RSS, MB |", "|---" * 5 + "|"]
    for name, figures in results.items():
        rate = figures["rows"] / figures["seconds"]
        cells = [name, f"{figures['seconds']:.1f}", f"{figures['cpu_seconds']:.1f}"]
        cells += [f"{rate:,.0f}", f"{figures['peak_mb']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    tokens = results.get("tokenise", {}).get("tokens")
    of_tokens = f", {tokens:,} tokens" if tokens else ""
    return f"""# Mixing, tokenising and scheduling {arguments.rows:,} samples

{table}

`mix`: the cards' three phases, split at the median answer, one file a phase. `tokenise`: all phases
with their replays{of_tokens}; `again`: the same, found on disk. `schedule`: one epoch of all
samples in steps of 3,840, cut into micro-batches. Each stage is a process of its own; peak RSS
counts mapped pages that were looked at.

{os.cpu_count()} cores, {arguments.threads} threads for the tokenizer, {_processor()},
Python {platform.python_version()}, tokenizers {version("tokenizers")}, numpy {version("numpy")};
tokenizer: {arguments.tokenizer.name}, {_size(arguments.tokenizer):,} tokens.
Again: `python benchmarks/mixing.py --tokenizer FOLDER --rows {arguments.rows} --words
{arguments.words}`
"""


def _vocabulary(tokenizer: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))["model"][
        "vocab"
    ]
    return found


def _size(tokenizer: Path) -> int:
    return len(_vocabulary(tokenizer))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    found = next((line for line in lines if line.startswith("model name")), "")
    return found.partition(":")[2].strip() or platform.machine()


if __name__ == "__main__":
    main()
