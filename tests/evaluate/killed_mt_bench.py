"""A process to be killed: MT-Bench over a checkpoint and a served model, three runs, one call at a
time."""

import json
import sys
from pathlib import Path

import world_bench

from feldspar.config import TeacherConfig
from feldspar.records import Checkpoint
from feldspar.teacher import Journal, open_teacher

bench, model, url, folder = sys.argv[1:]
with Journal(Path(folder) / "journal.sqlite") as journal:
    asked = open_teacher(TeacherConfig(concurrency=1), url, journal)
    scores = world_bench.run_bench(
        bench,
        Checkpoint(path=model, digest="d" * 64),
        asked,
        Path(folder),
        server=asked,
        num_runs=3,
    )
told = [[s.checkpoint, s.metric, s.value, s.num_items] for s in scores if s.exam == "mt-bench"]
(Path(folder) / "scores.json").write_text(json.dumps(told))
