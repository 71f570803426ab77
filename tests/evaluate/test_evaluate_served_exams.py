"""Exams of a served model: scored as a checkpoint's are, asked once, or without a figure."""

import logging
import signal
import time
from contextlib import asynccontextmanager, contextmanager

import killed_exams
import pytest
from echo_server import EchoServer, in_thread
from echo_server import serving as serving_echo
from forked import Forked
from taught import CONFIG, ITEMS, STUDENT, item

from feldspar.config import ServeConfig, TeacherConfig
from feldspar.endpoint.endpoint import Access
from feldspar.errors import TeacherError
from feldspar.evaluate.examinee import CheckpointExaminee
from feldspar.evaluate.exams.answers import answer_exam
from feldspar.evaluate.exams.checkpoints import evaluate_served
from feldspar.evaluate.served_examinee import ServedExaminee
from feldspar.models.local import LocalModel
from feldspar.records import Answer
from feldspar.runs import read_rows
from feldspar.serve import ModelCard, listening, make_app
from feldspar.serve.hosted_model import open_engine
from feldspar.serve.protocol import ChatReply, Choice
from feldspar.steps import Workspace
from feldspar.student.model import load_student
from feldspar.teacher import Journal, Teacher, open_teacher

WRONG = ("It is mud.", "It is no thing that anybody here would ever speak of.", "It is sea.")
ALL = [*ITEMS, item("What is red?", "It is blood.", match="choice", exam="choices", choices=WRONG)]


@asynccontextmanager
async def serving(student, name="toy", **config):
    """`feldspar serve` of a student."""
    async with (
        open_engine(student, ServeConfig(**config)) as engine,
        listening(make_app([ModelCard(name)], draw=engine.draw)) as url,
    ):
        yield url


@contextmanager
def opened(url, folder, **config):
    config = {"max_retries": 0} | config
    with Journal(folder / "journal.sqlite") as journal:
        yield open_teacher(TeacherConfig(**config), url, journal)


@pytest.fixture(scope="module")
def here(checkpoints):
    """What the taught checkpoint itself says to all items."""
    examinee = CheckpointExaminee("taught", checkpoints["taught"], STUDENT)
    return answer_exam(examinee, ALL, config=CONFIG, seed=1)


def exam_of(served, folder, items=ALL):
    scores = list(evaluate_served(Workspace(folder=folder), items, CONFIG, served=served, seed=1))
    return scores, list(read_rows(folder / "answers" / f"{served.folder_name}.jsonl.zst", Answer))


def facts(answers):
    return [(a.item, a.text.strip(), a.is_right, a.ended) for a in answers]


def likelihoods(answers):
    return [answer.log_likelihood for answer in answers]


def test_served_it_says_and_finds_likely_what_it_does_itself(checkpoints, here, tmp_path):
    path = checkpoints["taught"].path
    with (
        in_thread(serving(load_student(path, STUDENT))) as url,
        opened(url, tmp_path) as model,
    ):
        scores, answers = exam_of(ServedExaminee(model, None, path), tmp_path)
        assert model.num_asked == 2
    assert facts(answers) == facts(here)
    assert likelihoods(answers) == pytest.approx(likelihoods(here), abs=1e-4)
    found = {(s.exam, s.metric): s for s in scores}
    assert found["facts", "accuracy"].value == 0.5
    assert found["choices", "accuracy"].value == 1.0
    assert found["facts", "log-likelihood"].num_items == 3
    assert {s.checkpoint for s in scores} == {"toy"}
    assert {s.settings for s in scores} == {
        "greedy, up to 16 new tokens, served, the server's template"
    }


def test_a_folder_is_examined_in_the_same_way(checkpoints, here, tmp_path):
    path = checkpoints["taught"].path
    local = LocalModel(path, Access())
    with Journal(tmp_path / "journal.sqlite") as journal:
        model = Teacher(local, TeacherConfig(folder=path), journal)
        _, answers = exam_of(ServedExaminee(model, None, path), tmp_path)
    local.close()
    assert facts(answers) == facts(here)
    assert likelihoods(answers) == pytest.approx(likelihoods(here), abs=1e-4)


def test_without_a_tokenizer_there_are_right_answers_alone_and_it_is_said(
    checkpoints, here, tmp_path, caplog
):
    with (
        in_thread(serving(load_student(checkpoints["taught"].path, STUDENT))) as url,
        opened(url, tmp_path) as model,
    ):
        scores, answers = exam_of(ServedExaminee(model), tmp_path)
    assert facts(answers)[:3] == facts(here)[:3]
    assert likelihoods(answers) == [None] * 4
    assert {(s.exam, s.metric, s.num_items) for s in scores} == {("facts", "accuracy", 2)}
    assert scores[0].settings.endswith(", without log-probabilities")
    assert "toy: exams are scored without log-likelihoods and multiple choice" in caplog.text
    assert "evaluate.server_tokenizer" in caplog.text


def test_a_server_that_has_chat_alone_is_scored_without_them_now_and_from_the_journal(
    checkpoints, tmp_path
):
    path = checkpoints["taught"].path
    student = load_student(path, STUDENT)
    server = EchoServer(student.model, student.tokenizer, echoes=False, completes=False)
    with serving_echo(server) as url:
        for folder in (tmp_path / "first", tmp_path / "again"):
            with opened(url, tmp_path) as model:
                scores, answers = exam_of(ServedExaminee(model, None, path), folder)
            assert [a.is_right is None for a in answers] == [False, False, True, True]
            assert {s.metric for s in scores} == {"accuracy"}
    assert server.num_calls == 2


def test_nothing_is_asked_twice(checkpoints, tmp_path):
    path = checkpoints["taught"].path
    with (
        in_thread(serving(load_student(path, STUDENT))) as url,
        opened(url, tmp_path) as model,
    ):
        first = exam_of(ServedExaminee(model, None, path), tmp_path / "first")
    # The server is gone: all of it, log-probabilities too, is in the journal.
    with Journal(tmp_path / "journal.sqlite") as journal:
        from feldspar.models.opening import known_model

        gone = known_model(TeacherConfig(max_retries=0), url, "toy", "")
        model = Teacher(gone, TeacherConfig(max_retries=0), journal)
        again = exam_of(ServedExaminee(model, None, path), tmp_path / "again")
        with pytest.raises(TeacherError, match="is gone"):
            exam_of(ServedExaminee(model), tmp_path / "other", [item("Who?", "It is me.")])
    assert again[1] == first[1]


def test_its_key_is_the_model_and_never_an_address(checkpoints, tmp_path):
    student = load_student(checkpoints["taught"].path, STUDENT)

    def key(name="toy", path=None, row=None, **config):
        with in_thread(serving(student, name)) as url, opened(url, tmp_path, **config) as model:
            return ServedExaminee(model, row, path).key

    assert key() == key()
    others = [
        key("other"),
        key(revision="2"),
        key(path=checkpoints["taught"].path),
        key(row="served toy"),
    ]
    assert len({key(), *others}) == 5


def test_an_answer_without_text_is_a_wrong_one(tmp_path, caplog):
    asked = []

    async def complete(request):
        asked.append(request)
        return ChatReply(choices=(Choice("", "stop"),), prompt_tokens=1, completion_tokens=0)

    with (
        in_thread(listening(make_app([ModelCard("mute")], complete))) as url,
        opened(url, tmp_path, max_retries=3) as model,
        caplog.at_level(logging.ERROR),
    ):
        _, answers = exam_of(ServedExaminee(model), tmp_path)
    assert [(a.text, a.is_right) for a in answers[:2]] == [("", False)] * 2
    assert len(asked) == 2


def test_a_prompt_that_does_not_fit_ends_the_exam(checkpoints, tmp_path):
    long = item("What is red? " * 40, "It is blood.")
    with (
        in_thread(serving(load_student(checkpoints["taught"].path, STUDENT))) as url,
        opened(url, tmp_path) as model,
        pytest.raises(TeacherError, match=r"toy at http.*the question 'What is red\?.* of facts"),
    ):
        exam_of(ServedExaminee(model), tmp_path, [long])


@pytest.mark.slow
def test_killed_while_answering_it_goes_on_and_asks_once(tmp_path):
    """The server counts; the process that asks one at a time is killed twice."""
    asked = []

    async def complete(request):
        asked.append(request.messages[-1].content)
        text = f"It is {len(asked)}."
        return ChatReply(choices=(Choice(text, "stop"),), prompt_tokens=1, completion_tokens=1)

    with in_thread(listening(make_app([ModelCard("toy")], complete))) as url:
        for moment in (10, 60):
            process = Forked(killed_exams.main, url, tmp_path)
            while len(asked) < moment and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.said()
        Forked(killed_exams.main, url, tmp_path).succeed()
    # Twice is asked at most what was in flight, or waited for its commit, which a busy machine
    # delays. With nothing kept it would be 190 in all.
    assert len(set(asked)) == killed_exams.NUM_ITEMS
    assert len(asked) <= killed_exams.NUM_ITEMS + 2 * 30
