"""A result given on with its GGUF files, each of which is put to the run's exams."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step
from llama_cpp import write_llama_cpp
from tiny_base import STUDENT, save_base

from feldspar.cli.publish import with_types
from feldspar.config import Recipe
from feldspar.evaluate.exams.checkpoints import SCORES_STEP
from feldspar.publishing import publish_result
from feldspar.records import Checkpoint, ExamItem
from feldspar.runs import Run, cache_folder, open_step, read_recipe_of
from feldspar.steps import Workspace
from feldspar.student.model import load_student, save_checkpoint

# Speaks chat completions as llama.cpp's server does; knows one answer.
SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply({"data": [{"id": sys.argv[1]}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "7"}
        self.reply({"choices": [{"message": message, "finish_reason": "stop"}]})
    def reply(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
# The published model is random and answers none of them; the server answers the first eight.
ITEMS = tuple(
    ExamItem(
        id=str(n), exam="sevens", question=f"number {n}", reference="7" if n < 8 else "9",
        accepted=("7" if n < 8 else "9",), match="exact",
    )
    for n in range(10)
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("gguf", reason="needs feldspar[gguf]")
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMA_CPP", str(write_llama_cpp(tmp_path / "llama.cpp")))
    (tmp_path / "server.py").write_text(SERVER)
    base = save_base(tmp_path / "base")
    recipe = Recipe.model_validate({
        "taxonomy": {"path": "t"},
        "journal": str(tmp_path / "journal.sqlite"),
        "student": STUDENT.model_copy(update={"base": base.path}),
        "evaluate": {"max_new_tokens": 4},
        "publish": {
            "gguf_server": f"{sys.executable} {tmp_path / 'server.py'} {{model}} {{port}}"
        },
    })  # fmt: skip

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        student = load_student(base.path, recipe.student)
        yield save_checkpoint(student, workspace.folder / "model", phase="skills", step=3)

    with Run(tmp_path / "run", recipe) as opened:
        do_step(opened, "own-exams", lambda: list(ITEMS))
        do_step(opened, "trained", train)
        [trained] = open_step(opened.path, "trained") or ()
        opened.step(SCORES_STEP)(
            [("base", base), ("skills", trained)],
            ITEMS,
            recipe.evaluate.of_exams(),
            student=recipe.student,
            seed=recipe.seed,
            base_cache=cache_folder() / "exams",
        )
    return opened.path


@pytest.mark.slow
def test_the_card_says_what_a_file_has_lost_or_gained(run: Path, tmp_path: Path) -> None:
    [file] = publish_result(run, tmp_path / "out", types=["f16"])
    assert file.path == tmp_path / "out" / "run-F16.gguf"
    assert file.path.is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    [line] = [line for line in card.splitlines() if line.startswith("| `run-F16.gguf` |")]
    cells = [cell.strip() for cell in line.split("|")[3:-1]]
    assert cells[:5] == ["0 of 2", "sevens", "10", "0.00", "0.80"]
    assert cells[5].startswith("+0.80 [+0.")
    assert "| sevens | 10 | 0.00 | 0.00 | +0.00 [" in card
    assert "run-F16.Modelfile" in (tmp_path / "out" / "CHECKSUMS.sha256").read_text()


@pytest.mark.slow
def test_what_cannot_be_measured_is_said(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (run / "recipe.json").read_text()
    command = f"{sys.executable} {tmp_path / 'server.py'} {{model}} {{port}}"
    assert command in text
    (run / "recipe.json").write_text(text.replace(command, "auto"))
    monkeypatch.setattr("feldspar.publishing.find_command", lambda: None)
    publish_result(run, tmp_path / "out", types=["f16"])
    assert "pip install xllamacpp" in caplog.text
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `run-F16.gguf` | 0 | 0 of 2 | not measured | | | | |" in card


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["demo", "--gguf"], ["demo", "--gguf", "f16"]),
        (["--gguf", "--json", "demo"], ["--gguf", "f16", "--json", "demo"]),
        (["demo", "--gguf", "q8_0", "--gguf"], ["demo", "--gguf", "q8_0", "--gguf", "f16"]),
        (["demo", "--gguf=q8_0"], ["demo", "--gguf=q8_0"]),
    ],
)
def test_a_bare_gguf_is_f16(given: list[str], taken: list[str]) -> None:
    assert with_types(given) == taken


@pytest.mark.slow
def test_a_run_without_exams_is_published(run: Path, tmp_path: Path) -> None:
    recipe = read_recipe_of(run)
    [trained] = open_step(run, "trained") or ()
    with Run(tmp_path / "bare", recipe) as opened:
        do_step(opened, "trained", lambda: [trained])
        do_step(opened, "scores", list)
    publish_result(opened.path, tmp_path / "out")
    assert "This run has scored no exams" in (tmp_path / "out" / "README.md").read_text()
