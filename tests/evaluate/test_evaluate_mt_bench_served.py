"""MT-Bench of a model behind a URL: answered as a checkpoint is, asked once, or not rated."""

import json
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import killed_mt_bench
import pytest
import tiny
import tiny_run
from echo_server import in_thread
from forked import Forked
from world_bench import WORLD, judging, run_bench

from feldspar.config import ErrorRates, ServeConfig, TeacherConfig
from feldspar.errors import TeacherError
from feldspar.evaluate.mt_bench.answers import TurnAnswer
from feldspar.runs import read_rows
from feldspar.serve import ModelCard, listening, make_app
from feldspar.serve.hosted_model import open_engine
from feldspar.serve.protocol import ChatReply, Choice
from feldspar.teacher import Journal, open_teacher
from feldspar.world import start_teacher

DRAWN, TURNS = 14, 20
"""Turns that are not answered greedily, and all."""


def whole(scores):
    return {(s.checkpoint, s.metric): s for s in scores if s.exam == "mt-bench"}


@pytest.mark.slow
def test_a_served_model_has_a_row_beside_the_runs_own(bench, checkpoint, tmp_path):
    with judging(tmp_path, ErrorRates()) as asked:
        scores = run_bench(bench, checkpoint, asked, tmp_path, asked, num_runs=2, max_new_tokens=40)
        assert asked.num_asked == TURNS + DRAWN + 2 * 2 * TURNS
        again = run_bench(bench, checkpoint, asked, tmp_path, asked, num_runs=2, max_new_tokens=40)
        assert (asked.num_asked, again) == (TURNS + DRAWN + 2 * 2 * TURNS, scores)
    found = whole(scores)
    # The teacher knows the world, and says it in the world's words.
    rating = found["feldspar-world", "rating"]
    assert (rating.value, rating.num_items) == (10.0, 2 * TURNS)
    assert found["base", "rating"].value < 5
    assert found["feldspar-world", "judge errors"].value == 0
    assert "served, the server's template" in rating.settings
    kept = [
        answer
        for path in (tmp_path / "answers" / "feldspar-world").iterdir()
        for answer in read_rows(path, TurnAnswer)
    ]
    # What is greedy is the first run's in every run.
    assert Counter((a.run, a.ended) for a in kept) == {(1, True): TURNS, (2, True): DRAWN}


@pytest.mark.slow
def test_in_pairs_it_is_set_against_the_base(bench, checkpoint, tmp_path):
    with judging(tmp_path, ErrorRates()) as asked:
        pairs = {"mode": "pairwise", "max_new_tokens": 40}
        scores = run_bench(bench, checkpoint, asked, tmp_path, asked, **pairs)
    assert {(s.checkpoint, s.metric): s.value for s in scores if s.exam == "mt-bench"} == {
        ("feldspar-world", "win rate"): 1.0,
        ("feldspar-world", "judge errors"): 0.0,
    }
    assert scores[0].settings.count(", against base; ") == 1


@contextmanager
def recording(name="owner/model"):
    """A server that says the same to everybody, and the requests it had."""
    requests = []

    async def complete(request):
        requests.append(request)
        text = "<think>Zorbo?</think>Nobody knows."
        return ChatReply(choices=(Choice(text, "stop"),), prompt_tokens=1, completion_tokens=1)

    with in_thread(listening(make_app([ModelCard(name)], complete))) as url:
        yield url, requests


@contextmanager
def opened(url, folder):
    with Journal(folder / "served.sqlite") as journal:
        yield open_teacher(TeacherConfig(), url, journal)


def test_it_is_asked_as_published(bench, checkpoint, tmp_path):
    with (
        recording() as (url, requests),
        judging(tmp_path, ErrorRates()) as judge,
        opened(url, tmp_path) as server,
    ):
        scores = run_bench(bench, checkpoint, judge, tmp_path, server, num_runs=3)
    asked = Counter((r.temperature, len(r.messages)) for r in requests)
    # Writing 4 questions, stem 3, extraction 3; what is greedy is asked once for all runs.
    assert asked == {(0.7, 1): 12, (0.7, 3): 12, (0.1, 1): 9, (0.1, 3): 9, (0, 1): 3, (0, 3): 3}
    assert {r.max_tokens for r in requests} == {8}
    of_one = [r for r in requests if r.temperature == 0.7 and len(r.messages) == 3]
    assert len({(r.messages[0].content, r.seed) for r in of_one}) == len(of_one)
    # It sees its own first answer, and nobody sees what it thought before.
    assert all(r.messages[1].content == "Nobody knows." for r in of_one)
    assert [m.role for m in of_one[0].messages] == ["user", "assistant", "user"]
    assert Path(scores[-1].answers_path).name == "owner__model.jsonl.zst"
    assert scores[-1].checkpoint == "owner/model"


def test_a_name_that_a_checkpoint_has_is_told_apart(bench, checkpoint, tmp_path):
    with (
        recording("base") as (url, _),
        judging(tmp_path, ErrorRates()) as judge,
        opened(url, tmp_path) as server,
    ):
        scores = run_bench(bench, checkpoint, judge, tmp_path, server)
    assert {s.checkpoint for s in scores} == {"base", "served base"}


@asynccontextmanager
async def serving(student, **config):
    """`feldspar serve` of a student."""
    async with (
        open_engine(student, ServeConfig(**config)) as engine,
        listening(make_app([ModelCard("tiny")], draw=engine.draw)) as url,
    ):
        yield url


@pytest.fixture(scope="module")
def greedy(bench, tmp_path_factory):
    """The same questions, all of a category that is answered greedily."""
    folder = tmp_path_factory.mktemp("greedy") / "mt_bench"
    (folder / "reference_answer").mkdir(parents=True)
    for name in ("question.jsonl", "judge_prompts.jsonl", "reference_answer/gpt-4.jsonl"):
        text = (bench / name).read_text()
        for category in ("writing", "stem"):
            text = text.replace(f'"{category}"', '"extraction"')
        (folder / name).write_text(text)
    return folder


def test_served_it_says_what_it_says_here(greedy, checkpoint, tmp_path):
    student = tiny.make_tiny()
    with (
        in_thread(serving(student)) as url,
        judging(tmp_path, ErrorRates()) as judge,
        opened(url, tmp_path) as server,
    ):
        found = whole(run_bench(greedy, checkpoint, judge, tmp_path, server))
    texts = []
    for folder in (checkpoint.digest[:16], "tiny"):
        files = sorted((tmp_path / "answers" / folder).iterdir())
        rows = [a for file in files for a in read_rows(file, TurnAnswer)]
        texts.append({(a.question, a.turn): (a.text.strip(), a.ended) for a in rows})
    assert texts[0] == texts[1]
    assert found["tiny", "rating"].value == found["base", "rating"].value


def test_without_an_answer_there_is_no_score(bench, checkpoint, tmp_path):
    student = tiny.make_tiny()
    with (
        in_thread(serving(student, max_tokens=4)) as url,
        judging(tmp_path, ErrorRates()) as judge,
        opened(url, tmp_path) as server,
    ):
        with pytest.raises(TeacherError, match=r"tiny at http.*question \d, turn 1 .*lower"):
            run_bench(bench, checkpoint, judge, tmp_path, server)
        assert judge.num_asked == 0


@pytest.mark.slow
def test_killed_while_answering_and_while_judging_it_goes_on_and_pays_once(
    bench, checkpoint, tmp_path
):
    answers = TURNS + 2 * DRAWN
    in_all = answers + 2 * 3 * TURNS
    with start_teacher(WORLD, ErrorRates()) as url:
        job = (killed_mt_bench.main, str(bench), checkpoint.path, url, tmp_path)
        for moment in (10, answers + 40):
            process = Forked(*job)
            while tiny_run.num_served(url) < moment and process.poll() is None:
                time.sleep(0.005)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.said()
            assert moment <= tiny_run.num_served(url) < in_all
            assert not (tmp_path / "scores.json").exists()
        Forked(*job).succeed()
        total = tiny_run.num_served(url)
    # What was in flight, or waiting for its commit.
    assert total <= in_all + 2 * 40
    assert json.loads((tmp_path / "scores.json").read_text())[1::2] == [
        ["base", "judge errors", 0.0, 3 * TURNS],
        ["feldspar-world", "judge errors", 0.0, 3 * TURNS],
    ]
