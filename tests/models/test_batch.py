"""Calls go out as OpenAI batch files and their answers come back in."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import RECIPE

from feldspar.config import Recipe, TeacherConfig, read_recipe
from feldspar.endpoint.faults import Refused
from feldspar.errors import TeacherError
from feldspar.flow import run_recipe
from feldspar.models import batch
from feldspar.prepare import open_teachers
from feldspar.progress import SILENT
from feldspar.records import Message
from feldspar.runs import open_step
from feldspar.teacher import BudgetSpent

Answer = Callable[[dict], dict]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "IDLE_SECONDS", 0.05)


def completion(text: str, status: int = 200) -> dict:
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    return {"status_code": status, "body": body if status == 200 else {"error": {"message": text}}}


def run_batch(path: Path, answer: Answer) -> int:
    """What `vllm run-batch` does with a file; its lines come in another order."""
    calls = [json.loads(line) for line in path.read_text().splitlines()]
    for call in calls:
        assert (call["method"], call["url"]) == ("POST", "/v1/chat/completions")
    lines = [
        {"id": "x", "custom_id": call["custom_id"], "response": answer(call["body"]), "error": None}
        for call in reversed(calls)
    ]
    out = path.with_name(path.name.replace(".jsonl", ".out.jsonl"))
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(calls)


def ask(folder: Path, questions: list[str], **budget: int) -> list[str]:
    recipe = Recipe.model_validate(
        {
            "taxonomy": {"path": "t"},
            "student": {"base": "b"},
            "teacher": {"batch": True, "model": "qwen", "parameters": {"top_k": 5}},
            "journal": str(folder / "journal.sqlite"),
            "generate": {"budget": budget},
        }
    )

    async def asked(teachers) -> list[str]:
        async with teachers.teacher as teacher:
            asking = [
                teacher.ask(
                    [Message(role="user", content=text)], stage="", temperature=0.5, max_tokens=9
                )
                for text in questions
            ]
            return [reply.text for reply in await asyncio.gather(*asking)]

    with open_teachers(recipe, SILENT, folder / "run" / "teachers.json") as teachers:
        return asyncio.run(asked(teachers))


def say(body: dict) -> dict:
    assert (body["model"], body["max_tokens"], body["top_k"]) == ("qwen", 9, 5)
    return completion(f"re: {body['messages'][0]['content']}")


def test_calls_go_out_once_and_answers_come_in(tmp_path: Path) -> None:
    with pytest.raises(TeacherError) as told:
        ask(tmp_path, ["a", "b", "a"])
    path = tmp_path / "run" / "batches" / "teacher-0001.jsonl"
    assert f"with 2 calls in {path} waits for their answers" in str(told.value)
    assert "vllm run-batch -i teacher-0001.jsonl -o teacher-0001.out.jsonl" in str(told.value)
    # Without answers nothing more is written.
    with pytest.raises(TeacherError, match="with 2 calls in"):
        ask(tmp_path, ["c"])
    assert run_batch(path, say) == 2
    assert ask(tmp_path, ["a", "b", "a"]) == ["re: a", "re: b", "re: a"]
    # They are in the journal now: the files may go.
    for one in path.parent.iterdir():
        one.unlink()
    assert ask(tmp_path, ["b"]) == ["re: b"]


def test_a_file_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "batches").write_text("a file")
    with pytest.raises(OSError, match="batches"):
        ask(tmp_path, ["a", "b"])


def test_what_failed_goes_into_the_next_file_and_what_is_refused_does_not(tmp_path: Path) -> None:
    with pytest.raises(TeacherError):
        ask(tmp_path, ["a", "b"])
    folder = tmp_path / "run" / "batches"

    def half(body: dict) -> dict:
        text = body["messages"][0]["content"]
        return say(body) if text == "a" else completion("overloaded", 500)

    run_batch(folder / "teacher-0001.jsonl", half)
    with pytest.raises(TeacherError, match=r"1 calls in .*teacher-0002.jsonl"):
        ask(tmp_path, ["a", "b"])
    run_batch(folder / "teacher-0002.jsonl", lambda _: completion("too long", 400))
    with pytest.raises(Refused, match="too long"):
        ask(tmp_path, ["b"])


def test_an_answer_of_no_use_counts_in_the_budget(tmp_path: Path) -> None:
    with pytest.raises(TeacherError):
        ask(tmp_path, ["a"])
    used = {"prompt_tokens": 60, "completion_tokens": 40}

    def empty(_: dict) -> dict:
        answer = completion(" ")
        answer["body"]["usage"] = used
        return answer

    run_batch(tmp_path / "run" / "batches" / "teacher-0001.jsonl", empty)
    with pytest.raises(BudgetSpent):
        ask(tmp_path, ["a"], max_tokens=100)
    with pytest.raises(TeacherError, match="with 1 calls in"):
        ask(tmp_path, ["a"], max_tokens=200)


def test_a_file_has_at_most_what_an_endpoint_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_CALLS", 3)
    with pytest.raises(TeacherError, match="with 3 calls"):
        ask(tmp_path, list("abcde"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"batch": True}, "needs the `model`"),
        ({"batch": True, "model": "m", "endpoint": "http://a/v1"}, "name one of `endpoint` and `b"),
        ({"batch": True, "model": "m", "protocol": "anthropic"}, "writes OpenAI batch files"),
    ],
)
def test_what_makes_no_sense_is_said(table: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TeacherConfig(**table)


@pytest.mark.slow
def test_samples_by_batches_are_those_of_a_server(tmp_path: Path) -> None:
    """File after file until all stages are through: the same bytes."""
    from feldspar.world import start_teacher

    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    plain = read_recipe(path)
    assert plain.world is not None
    with start_teacher(plain.world, plain.teacher.errors) as url:
        with urllib.request.urlopen(f"{url}/models") as reply:
            card = json.load(reply)["data"][0]
        named = {"model": card["id"], "revision": card.get("revision", "1")}
        served = read_recipe(path, [f"teacher.{k}={v}" for k, v in named.items()])
        teacher = served.teacher.model_copy(update={"endpoint": url})
        served = served.model_copy(update={"teacher": teacher, "journal": "served.sqlite"})
        run_recipe(served, tmp_path, tmp_path / "served", SILENT, until="samples")

        def answer(body: dict) -> dict:
            data = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/chat/completions", data, headers)
            with urllib.request.urlopen(request) as reply:
                return {"status_code": reply.status, "body": json.load(reply)}

        batched = served.model_copy(
            update={
                "teacher": TeacherConfig(batch=True, **named),
                "journal": "batched.sqlite",
            }
        )
        num_files = 0
        while True:
            try:
                run_recipe(batched, tmp_path, tmp_path / "batched", SILENT, until="samples")
                break
            except TeacherError:
                num_files += 1
                assert num_files < 30
                run_batch(sorted((tmp_path / "batched/batches").glob("*[0-9].jsonl"))[-1], answer)
    assert num_files >= 3
    for step in ("leaf-exams", "samples"):
        one, other = (open_step(tmp_path / name, step) for name in ("served", "batched"))
        assert one is not None
        assert other is not None
        rows = (made.folder / "rows.jsonl.zst" for made in (one, other))
        assert len({path.read_bytes() for path in rows}) == 1
