"""One model asked in three ways: in its folder, behind a URL, and behind a command."""

import asyncio
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import save_base
from toy_models import BAD, GOOD, ask

from feldspar.config import Recipe, TeacherConfig
from feldspar.endpoint.calls import ChatCall, PromptCall
from feldspar.endpoint.endpoint import Access
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.errors import TeacherError, TrainingError
from feldspar.models.launched import LaunchedModel
from feldspar.models.local import LocalModel
from feldspar.models.model import Continuations
from feldspar.models.opening import find_model
from feldspar.models.served import Wanted, find_served
from feldspar.models.server import Start
from feldspar.prepare import open_teachers
from feldspar.progress import SILENT
from feldspar.records import Message

SERVE = shlex.join(
    [sys.executable, "-P", "-m", "feldspar.cli.main", "serve", "{model}", "--port", "{port}"]
)
CHAT = shlex.join(
    [
        sys.executable,
        "-S",
        str(Path(__file__).with_name("chat_server.py")),
        "{model}",
        "{host}",
        "{port}",
    ]
)
ROW = Continuations([7, 30, 41, 12], [[5, 9], [200], []])


def chat(number: int, seed: int = 0, temperature: float = 0.0) -> ChatCall:
    messages = [{"role": "user", "content": ask(number)}]
    return ChatCall(messages=messages, temperature=temperature, max_tokens=20, seed=seed)


def run(model, *works):
    """What the works of a model give, entered once."""

    async def together():
        async with model:
            return await asyncio.gather(*(work(model) for work in works))

    return asyncio.run(together())


def start_of(folder: str, tmp_path: Path, command: str = SERVE, **changes) -> Start:
    return Start(command=command, model=folder, log_folder=tmp_path / "servers", **changes)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_a_folder_answers_scores_and_is_known_by_its_content(folder: str) -> None:
    model = LocalModel(folder, Access())
    assert model.key.startswith("toy@")
    first, again, drawn = run(
        model,
        lambda m: m.complete(chat(1)),
        lambda m: m.complete(chat(1)),
        lambda m: m.complete(PromptCall(prompt=[5, 6], max_tokens=3, num_choices=4,
                                        temperature=1.0, seed=3)),
    )  # fmt: skip
    assert first == again
    assert first.choices[0].text in (GOOD, BAD)
    assert first.choices[0].finish_reason == "stop"
    assert first.usage.completion_tokens > 2
    assert len(drawn.choices) == 4
    ((scored,),) = run(model, lambda m: m.score([ROW]))
    assert [one.num_tokens for one in scored] == [2, 1, 0]
    assert scored[0].total < 0
    assert scored[2].total == 0
    with pytest.raises(Refused, match="do not fit into a context of 256"):
        run(model, lambda m: m.complete(PromptCall(prompt=[5] * 300, max_tokens=3)))
    model.close()


def test_a_folder_without_a_chat_template_scores_and_is_not_asked(tmp_path: Path) -> None:
    """A reward pair's base has none."""
    path = str(save_base(tmp_path / "plain"))
    ((scored,),) = run(LocalModel(path, Access()), lambda m: m.score([ROW]))
    assert [one.num_tokens for one in scored] == [2, 1, 0]
    with pytest.raises(TrainingError, match=f"{path}: it has no chat template"):
        run(LocalModel(path, Access()), lambda m: m.complete(chat(1)))


def test_other_prompts_draw_other_numbers_and_other_seeds_other_answers(folder: str) -> None:
    model = LocalModel(folder, Access())
    calls = [chat(n, seed, 1.0) for n in range(4) for seed in range(4)]
    found = run(model, *(lambda m, call=call: m.complete(call) for call in calls))
    assert {one.choices[0].text for one in found} >= {GOOD, BAD}
    alone = run(model, lambda m: m.complete(calls[5]))
    assert alone[0] == found[5]
    model.close()


@pytest.mark.slow
def test_a_command_is_started_once_asked_and_ended(folder: str, tmp_path: Path) -> None:
    local, launched = (
        LocalModel(folder, Access()),
        LaunchedModel(start_of(folder, tmp_path, num_replicas=2), Access(concurrency=4)),
    )
    assert launched.key == local.key
    works = [lambda m, n=n: m.complete(chat(n)) for n in range(6)]
    assert not list(tmp_path.iterdir())
    by_server = run(launched, *works)
    assert [one.choices for one in by_server] == [one.choices for one in run(local, *works)]
    assert [one.usage for one in by_server] == [one.usage for one in run(local, *works)]
    logs = sorted(path.name for path in (tmp_path / "servers").iterdir())
    assert logs == ["server-0.log", "server-1.log"]
    ((scored_there,),) = run(launched, lambda m: m.score([ROW]))
    ((by_folder,),) = run(local, lambda m: m.score([ROW]))
    for one, other in zip(scored_there, by_folder, strict=True):
        assert one.total == pytest.approx(other.total, abs=1e-4)
    behind = run(launched, lambda m: m.served())[0]
    (tokens,) = run(launched, lambda _: behind.prompt_tokens("It is lovely."))
    assert "".join(token.text for token in tokens) == "It is lovely."[tokens[0].start :]
    assert all(token.log_prob <= 0 for token in tokens)
    pids = [server.process.pid for server in launched.servers]
    assert all(map(is_running, pids))
    launched.close()
    assert not any(map(is_running, pids))
    local.close()


def test_a_command_that_ends_is_told_of_with_its_last_words(folder: str, tmp_path: Path) -> None:
    dies = shlex.join([sys.executable, "-c", "print('out of memory'); exit(3)", "{port}"])
    launched = LaunchedModel(start_of(folder, tmp_path, dies), Access())
    with pytest.raises(NoAnswers) as told:
        run(launched, lambda m: m.complete(chat(1)), lambda m: m.complete(chat(2)))
    assert "did not come up (status 3); its last words: out of memory" in told.value.reason
    assert "mend the `command`" in told.value.sentence("teacher")
    launched.close()


def test_a_started_server_is_asked_without_the_environments_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    launched = LaunchedModel(start_of("m", tmp_path, CHAT, seconds=5.0), Access(max_retries=0))
    (answer,) = run(launched, lambda m: m.complete(chat(1)))
    assert answer.choices[0].text.startswith("said by")
    launched.close()


def test_a_server_that_dies_between_calls_is_told_of(tmp_path: Path) -> None:
    launched = LaunchedModel(start_of("m", tmp_path, CHAT), Access(max_retries=3))
    run(launched, lambda m: m.complete(chat(1)))
    (server,) = launched.servers
    server.let_go()
    server.process.wait()
    with pytest.raises(NoAnswers, match="ended before it had answered all"):
        run(launched, lambda m: m.complete(chat(2)))
    launched.close()


def test_of_several_replicas_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = start_of("m", tmp_path, CHAT, num_replicas=2)
    launched = LaunchedModel(start, Access(concurrency=4))
    works = [lambda m, n=n: m.complete(chat(n)) for n in range(20)]
    assert len({one.choices[0].text for one in run(launched, *works)}) == 2
    first, _ = launched.servers
    first.let_go()
    first.process.wait()
    found = run(launched, *works)
    assert len({one.choices[0].text for one in found}) == 1
    assert caplog.text.count("one server of 2 ended before it had answered all") == 1
    launched.close()


@pytest.mark.parametrize("kind", ["folder", "command"])
def test_a_teacher_may_be_a_folder_or_a_command(folder: str, tmp_path: Path, kind: str) -> None:
    how = {"folder": folder} if kind == "folder" else {"command": CHAT, "model": folder}
    recipe = Recipe.model_validate(
        {"taxonomy": {"path": "t"}, "student": {"base": "b"}, "teacher": how, "judge": how}
    ).model_copy(update={"journal": str(tmp_path / "j.sqlite")})

    async def asked(teachers) -> list[str]:
        messages = [Message(role="user", content=ask(1))]
        async with teachers.teacher as teacher, teachers.judge as judge:
            one = await teacher.ask(messages, stage="", temperature=0, max_tokens=20)
            other = await judge.ask(messages, stage="", temperature=0, max_tokens=20)
            assert (one.cached, other.cached) == (False, True)
            return [one.text, other.text]

    met = tmp_path / "run" / "teachers.json"
    for _ in range(2):
        with open_teachers(recipe, SILENT, met) as teachers:
            assert teachers.teacher.key.startswith("toy@")
            if not (tmp_path / "run").exists():
                (tmp_path / "run").mkdir()
                one, other = asyncio.run(asked(teachers))
                assert one == other != ""
    # The second time nothing was asked, so nothing was started.
    assert len(list(tmp_path.glob("run/servers/*"))) == (kind == "command")


@pytest.mark.slow
def test_a_served_teacher_loads_no_torch() -> None:
    code = (
        "import sys, feldspar.prepare, feldspar.teacher, feldspar.models.opening\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_launched_server_never_outlives_the_run(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from feldspar.endpoint.calls import ChatCall
from feldspar.endpoint.endpoint import Access
from feldspar.models.launched import LaunchedModel
from feldspar.models.server import Start

async def main():
    start = Start(command={CHAT!r}, model="m", log_folder=Path({str(tmp_path)!r}))
    async with LaunchedModel(start, Access()) as model:
        await model.served()
        print(*(s.process.pid for s in model.servers), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"endpoint": "http://a/v1", "folder": "f"}, "name one of `endpoint` and `folder`"),
        ({"command": "x {port}", "folder": "f"}, "name one of `command` and `folder`"),
        ({"command": "vllm serve"}, r"no \{port\}"),
        ({"command": "vllm serve {model} --port {port}"}, "name the `model` too"),
        ({"command": "serve --port {port}"}, "needs the `model` that it serves"),
        ({"command": "vllm 'serve {port}", "model": "m"}, "cannot be read"),
        ({"replicas": 2}, "there is none"),
        ({"folder": "f", "parameters": {"top_k": 1}}, "takes no `parameters`"),
        ({"protocol": "anthropic"}, "speaks OpenAI's protocol alone"),
        ({"parameters": {"messages": []}}, "set by the run itself"),
        ({"parameters": {"temperature": 1}}, "parameters.temperature is false"),
        ({"parameters": {"top_p": float("nan")}}, "cannot be sent as JSON"),
        ({"endpoint": "http://me:secret@a/v1"}, "holds a user name, a password or a key"),
    ],
)
def test_what_cannot_be_is_said(table: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as told:
        TeacherConfig(**table)
    assert "secret@" not in str(told.value) or "input_value" in str(told.value)


def test_nobody_there_is_said_for_who_it_is() -> None:
    with pytest.raises(TeacherError, match=r"no judge answers at http://127.0.0.1:9/v1"):
        find_model(TeacherConfig(), "http://127.0.0.1:9/v1", who="judge")
    with pytest.raises(NoAnswers):
        find_served(Wanted(urls=["http://127.0.0.1:9/v1"]), Access())
