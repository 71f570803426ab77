"""A few of a run's own calls, timed: how fast its teacher is. The run finds their answers again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.borrowed import gather_borrowed
from feldspar.generate.in_order import run_stream
from feldspar.generate.pipelines import open_pipelines
from feldspar.generate.requests import sample_requests
from feldspar.generate.samples import write_all
from feldspar.records import Leaf
from feldspar.teacher import Teacher


class Probed(NamedTuple):
    """What a server answered in a time."""

    calls: float
    completion_tokens: float
    seconds: float


def probe(
    leaves: Sequence[Leaf],
    config: GenerateConfig,
    *,
    teacher: Teacher,
    judge: Teacher,
    seed: int,
) -> Probed:
    """Ask as many of the run's first calls as `config.budget` and the teacher's allow.

    No calls: all that the budget covers is in the journal. Raises TeacherError.
    """
    pipelines = open_pipelines(teacher, judge, config)
    borrowed = gather_borrowed(leaves, config, seed)
    of_leaves = [sample_requests(leaf, config, seed, borrowed) for leaf in leaves]
    # One of each leaf in turn, so that few calls see every kind of leaf.
    turns = itertools.zip_longest(*of_leaves)
    requests = (request for turn in turns for request in turn if request is not None)
    started = time.monotonic()
    paid = itertools.takewhile(lambda _: not pipelines.writers.is_spent, requests)
    for _ in run_stream(write_all(paid, pipelines)):
        pass
    seconds = time.monotonic() - started
    people = {teacher, judge}
    return Probed(
        calls=sum(one.num_asked for one in people),
        completion_tokens=sum(one.completion_tokens for one in people),
        seconds=seconds,
    )
