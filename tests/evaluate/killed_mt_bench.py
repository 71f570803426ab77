"""A process to be killed: MT-Bench over a checkpoint and a served model, three runs, one call at a
time."""

import json
from pathlib import Path

import world_bench

from feldspar.config import TeacherConfig
from feldspar.records import Checkpoint
from feldspar.teacher import Journal, open_teacher


def main(bench: str, model: str, url: str, folder: Path) -> None:
    with Journal(folder / "journal.sqlite") as journal:
        asked = open_teacher(TeacherConfig(concurrency=1), url, journal)
        checkpoint = Checkpoint(path=model, digest="d" * 64)
        scores = world_bench.run_bench(bench, checkpoint, asked, folder, server=asked, num_runs=3)
    told = [[s.checkpoint, s.metric, s.value, s.num_items] for s in scores if s.exam == "mt-bench"]
    (folder / "scores.json").write_text(json.dumps(told))
