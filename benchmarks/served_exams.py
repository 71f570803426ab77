"""Exams of one model, computed here, through `feldspar serve` and through other servers.

    python benchmarks/served_exams.py runs/quickstart
        [--llama-python PATH --llama-cpp FOLDER] [--limit 200]
        [--served "vllm=vllm serve {model} --port {port} --dtype bfloat16 --enforce-eager"]

Each way is put the same report items of the run's exams (`--limit` of each exam). The two servers
are commands that are launched and ended, as `[evaluate.server]` has them. `--llama-python` is a
Python with `xllamacpp`, `--llama-cpp` a folder with llama.cpp's `convert_hf_to_gguf.py`; without
them that way is left out. `--served NAME=COMMAND` adds a server of any kind that has the result's
folder for its model's name.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import EvaluateConfig, StudentConfig, TeacherConfig
from feldspar.evaluate.examinee import CheckpointExaminee, Examinee
from feldspar.evaluate.exams.answers import answer_exam
from feldspar.evaluate.served_examinee import ServedExaminee
from feldspar.files import write_text_whole
from feldspar.models.opening import unserved_model
from feldspar.publish.gguf import find_tools, write_gguf
from feldspar.records import Answer, Checkpoint, ExamItem
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.stats.intervals import proportion_interval
from feldspar.student.model import base_checkpoint
from feldspar.teacher import Journal, Teacher

MODULE = shlex.join([sys.executable, "-P", "-m", "feldspar.cli.main"])
SERVE = f"{MODULE} serve {{model}} --port {{port}}"
LLAMA = """
import sys, time, xllamacpp
path, port = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = path, {"quickstart"}
params.hostnames, params.port = ["127.0.0.1"], int(port)
params.n_parallel, params.n_ctx = 4, 4 * 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.use_jinja = True
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""
"""llama.cpp's own server. One thread: at this size more of them wait for each other."""
CONVERTER = """
import runpy, sys
sys.path.insert(0, {folder!r})
from conversion.base import TextModel
# The world's tokenizers are GPT-2's byte-level BPE with a vocabulary of their own, which llama.cpp
# knows by a hash of known vocabularies alone.
TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
sys.argv[0] = {folder!r} + "/convert_hf_to_gguf.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    name: str
    answers: list[Answer]
    seconds: float


def report_items(run_path: Path, limit: int | None) -> list[ExamItem]:
    """The items that are reported on, the first `limit` of each exam."""
    by_exam: defaultdict[str, list[ExamItem]] = defaultdict(list)
    for step in ("own-exams", "leaf-exams"):
        for item in open_step(run_path, step) or ():
            if item.use == "report":
                by_exam[item.exam].append(item)
    return [item for items in by_exam.values() for item in items[:limit]]


@contextmanager
def launched(
    config: TeacherConfig, folder: Path, name: str, tokenizer: str
) -> Iterator[ServedExaminee]:
    """A model behind a command, with a journal of its own."""
    model = unserved_model(config, folder, name)
    assert model is not None
    try:
        with Journal(folder / f"{name}.sqlite") as journal:
            teacher = Teacher(model, config, journal)
            yield ServedExaminee(teacher, name, tokenizer)
    finally:
        model.close()


def measure(
    name: str, examinee: Examinee, items: Sequence[ExamItem], config: EvaluateConfig
) -> Way:
    began = time.perf_counter()
    answers = answer_exam(examinee, items, config=config, seed=1)
    return Way(name=name, answers=answers, seconds=time.perf_counter() - began)


def make_gguf(checkpoint: Checkpoint, llama_cpp: Path, folder: Path) -> Path:
    """As `feldspar publish --gguf` does, by a converter that knows the world's tokenizers."""
    import os
    import shutil

    shim = folder / "converter"
    shim.mkdir()
    (shim / "convert_hf_to_gguf.py").write_text(CONVERTER.format(folder=str(llama_cpp.resolve())))
    os.environ["LLAMA_CPP"] = str(shim)
    published = folder / "published"
    shutil.copytree(checkpoint.path, published)
    [file] = write_gguf(published, "quickstart", ["f16"], find_tools(["f16"]))
    return file.path


def ways(
    checkpoint: Checkpoint,
    student: StudentConfig,
    items: Sequence[ExamItem],
    config: EvaluateConfig,
    arguments: argparse.Namespace,
    folder: Path,
) -> Iterator[Way]:
    yield measure("here", CheckpointExaminee("here", checkpoint, student), items, config)
    serve = TeacherConfig(command=SERVE, model=checkpoint.path)
    with launched(serve, folder, "feldspar-serve", checkpoint.path) as examinee:
        yield measure("feldspar serve", examinee, items, config)
    for named in arguments.served:
        name, _, command = named.partition("=")
        other = TeacherConfig(command=command, model=checkpoint.path, start_seconds=900)
        with launched(other, folder, name, checkpoint.path) as examinee:
            yield measure(name, examinee, items, config)
    if arguments.llama_python and arguments.llama_cpp:
        gguf = make_gguf(checkpoint, arguments.llama_cpp, folder)
        (folder / "llama.py").write_text(LLAMA)
        command = shlex.join([arguments.llama_python, str(folder / "llama.py"), str(gguf)])
        llama = TeacherConfig(command=f"{command} {{port}}", model="quickstart")
        with launched(llama, folder, "llama.cpp", checkpoint.path) as examinee:
            yield measure("llama.cpp", examinee, items, config)


def table(items: Sequence[ExamItem], found: Sequence[Way]) -> str:
    """One row a way: right of how many, and what differs from the first."""
    here = found[0]
    lines = [
        "| way | n | right | accuracy | verdicts that differ | texts that differ | "
        "largest difference of log-likelihood | seconds |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for way in found:
        graded = [a.is_right for a in way.answers if a.is_right is not None]
        pairs = list(zip(here.answers, way.answers, strict=True))
        both = [(a, b) for a, b in pairs if a.is_right is not None and b.is_right is not None]
        verdicts = sum(a.is_right != b.is_right for a, b in both)
        texts = sum(a.text.strip() != b.text.strip() for a, b in both)
        apart = [
            abs(a.log_likelihood - b.log_likelihood)
            for a, b in pairs
            if a.log_likelihood is not None and b.log_likelihood is not None
        ]
        low, high = proportion_interval(sum(graded), len(graded))
        share = f"{sum(graded) / len(graded):.4f} [{low:.4f}, {high:.4f}]"
        largest = f"{max(apart):.1e} of {len(apart)}" if apart else "not told"
        lines.append(
            f"| {way.name} | {len(graded)} | {sum(graded)} | {share} | {verdicts} | {texts} | "
            f"{largest} | {way.seconds:.1f} |"
        )
    lines += ["", *differences(items, found)]
    return "\n".join(lines) + "\n"


def differences(items: Sequence[ExamItem], found: Sequence[Way]) -> Iterator[str]:
    """Up to ten items whose texts differ."""
    for way in found[1:]:
        pairs = zip(items, found[0].answers, way.answers, strict=True)
        other = [(i, a, b) for i, a, b in pairs if i.match != "choice" and a.text != b.text]
        for item, a, b in [row for row in other if row[1].text.strip() != row[2].text.strip()][:10]:
            yield f"- {way.name}, {item.exam}: {item.question!r}: here {a.text!r}, there {b.text!r}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--llama-python")
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--served", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    recipe = read_recipe_of(arguments.run)
    checkpoint = base_checkpoint(result_of(arguments.run).path)
    items = report_items(arguments.run, arguments.limit)
    with tempfile.TemporaryDirectory() as folder:
        config = recipe.evaluate.of_exams()
        found = list(ways(checkpoint, recipe.student, items, config, arguments, Path(folder)))
    text = table(items, found)
    print(text)
    if arguments.out:
        write_text_whole(arguments.out, text)


if __name__ == "__main__":
    main()
