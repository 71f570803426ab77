"""A process to be killed: MT-Bench over one checkpoint, five runs, one call at a time."""

import json
from pathlib import Path

from feldspar.config import MTBenchConfig, StudentConfig, TeacherConfig
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
from feldspar.evaluate.mt_bench.run import score_mt_bench
from feldspar.records import Checkpoint
from feldspar.teacher import Journal, open_teacher


def main(bench: str, model: str, url: str, folder: Path) -> None:
    config = MTBenchConfig(data=bench, max_new_tokens=4, num_runs=5)
    with Journal(folder / "journal.sqlite") as journal:
        judge = open_teacher(TeacherConfig(concurrency=1), url, journal)
        scores = list(
            score_mt_bench(
                [("base", Checkpoint(path=model, digest="d" * 64))],
                read_mt_bench(find_mt_bench(config)),
                config,
                judge=judge,
                student=StudentConfig(base="tiny", device="cpu"),
                num_resamples=50,
                here=folder,
                seed=1,
            )
        )
    summary = {"errors": scores[-1].value, "num_items": scores[0].num_items}
    (folder / "scores.json").write_text(json.dumps(summary))
