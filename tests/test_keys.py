"""A key covers what decides a result, and nothing else."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from feldspar.config import (
    BenchmarkConfig,
    EvaluateConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
)
from feldspar.keys import Place, Rounding, content_key, content_of, decisions
from feldspar.records import Checkpoint, Source


def test_rounding_speed_and_place_count_in_no_key():
    usual = TrainConfig()
    for changed in (
        TrainConfig(tokens_per_micro_batch=512),
        TrainConfig(recompute="always"),
        TrainConfig(shard="layer"),
        TrainConfig(packing=False),
        TrainConfig(keep_best=9),
    ):
        assert content_key(changed) == content_key(usual)
    assert content_key(TrainConfig(learning_rate=1e-3)) != content_key(usual)
    student = StudentConfig(base="a")
    assert content_key(student) == content_key(StudentConfig(base="/b", device="cpu", compile=True))
    assert content_key(student) != content_key(StudentConfig(base="a", dtype="bfloat16"))


def test_a_teacher_is_known_by_its_model_and_not_by_where_it_is():
    one = TeacherConfig(endpoint="http://localhost:8000/v1", model="m", concurrency=4)
    other = TeacherConfig(endpoint="http://elsewhere/v1", model="m", max_retries=1)
    assert content_key(one) == content_key(other)
    assert content_key(one) != content_key(TeacherConfig(model="m", revision="2"))


def test_records_are_known_by_their_content():
    here = Source(name="a", path="/one/rows", digest="d", num_samples=3)
    there = Source(name="a", path="/two/rows", digest="d", num_samples=3)
    assert content_key([here]) == content_key((there,))
    moved = Checkpoint(path="/two", digest="d", phase="skills", step=9)
    assert content_key(moved) == content_key(Checkpoint(path="/one", digest="d"))


def test_marks_of_records_and_tables_are_read_alike():
    @dataclass(frozen=True)
    class Record:
        kept: int
        order: Rounding[int]
        where: Place[str]

    assert decisions(Record) == {"kept": "result", "order": "rounding", "where": "place"}
    assert content_of(Record(1, 2, "x")) == {"kept": 1}


def test_what_has_no_key_is_refused():
    with pytest.raises(AssertionError, match="object has no key"):
        content_key(object())


def test_exams_are_known_without_what_benchmarks_are_run():
    plain = EvaluateConfig()
    more = EvaluateConfig(benchmark=(BenchmarkConfig(task="mmlu"),))
    assert content_key(plain.of_items()) == content_key(more.of_items())


def test_the_flow_loads_no_torch_until_it_trains() -> None:
    code = (
        "import sys, feldspar.flow, feldspar.add_leaf, feldspar.planning, feldspar.trials;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.slow
def test_samples_are_written_without_torch(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing either is an error
from feldspar.cli.main import main
for line in (["init", "p"], ["generate", "p/recipe.toml"]):
    sys.argv = ["feldspar", *line]
    try:
        main()
    except SystemExit as end:
        assert not end.code, line
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path)
    assert list(tmp_path.glob("runs/*/steps/samples/*/done.json"))
