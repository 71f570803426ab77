"""Sampling and log-probabilities against plain references."""

import math

import pytest
import torch
from tiny import COLOURS, make_tiny

from feldspar.records import Message
from feldspar.student.inference.sample import sample_answers, sample_questions
from feldspar.student.model import Student
from feldspar.student.scoring.log_probs import AnswerRow, answer_log_probs


@pytest.fixture(scope="module")
def student() -> Student:
    return make_tiny()


PROMPTS = [
    (Message(role="user", content=" ".join(COLOURS[: n % 4 + 1]) + "?" * (n % 7)),)
    for n in range(40)
]
KEYS = [f"prompt {n}" for n in range(40)]


def plain_next(student: Student, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return student.model(torch.tensor([ids])).logits[0, -1]


def test_greedy_is_what_a_plain_model_does(student):
    ours = sample_answers(student, PROMPTS[:8], keys=KEYS[:8], max_new_tokens=6, seed=1)
    for prompt, (answer,) in zip(PROMPTS, ours, strict=False):
        ids = student.template.render_prompt(prompt)
        theirs: list[int] = []
        while len(theirs) < 6 and student.template.stop_id not in theirs:
            theirs.append(int(plain_next(student, ids + theirs).argmax()))
        assert answer.num_tokens == len(theirs)
        assert answer.text == student.template.decode_answers([theirs])[0]
        assert answer.ended == (student.template.stop_id in theirs)


@pytest.mark.slow
def test_an_answer_does_not_depend_on_its_batch(student):
    options = {"temperature": 1.0, "num_answers": 3, "max_new_tokens": 12, "seed": 5}
    together = sample_answers(student, PROMPTS, keys=KEYS, **options)
    backwards = sample_answers(student, PROMPTS[::-1], keys=KEYS[::-1], **options)[::-1]
    alone = [
        sample_answers(student, PROMPTS[i : i + 1], keys=KEYS[i : i + 1], **options)[0]
        for i in range(9)
    ]
    assert together == backwards
    assert together[:9] == alone
    other = sample_answers(student, PROMPTS, keys=KEYS, **(options | {"seed": 6}))
    assert together != other


def test_draws_differ_and_follow_the_model(student):
    prompt = PROMPTS[0]
    (answers,) = sample_answers(
        student, [prompt], keys=["k"], num_answers=4000, temperature=1.0, max_new_tokens=1, seed=1
    )
    logits = plain_next(student, student.template.render_prompt(prompt))
    chance = logits.softmax(-1)[student.template.stop_id].item()
    drawn = sum(a.ended for a in answers) / len(answers)
    assert abs(drawn - chance) < 4 * math.sqrt(chance * (1 - chance) / 4000) + 1e-3
    assert len({a.text for a in answers}) > 20


def test_temperature_zero_gives_the_same_answer_every_time(student):
    (answers,) = sample_answers(
        student, PROMPTS[:1], keys=["k"], num_answers=3, max_new_tokens=4, seed=1
    )
    assert answers[0] == answers[1] == answers[2]


def test_no_prompts_no_answers(student):
    assert sample_answers(student, [], keys=[], max_new_tokens=4, seed=1) == []
    assert answer_log_probs(student, []) == []


def test_log_probs_are_those_of_a_plain_model(student):
    rows = [
        AnswerRow(prompt, "it is " + "red " * (n % 5), ended=n % 2 == 0)
        for n, prompt in enumerate(PROMPTS)
    ]
    for row, scored in zip(rows, answer_log_probs(student, rows), strict=True):
        prompt = student.template.render_prompt(row.messages)
        answer = student.template.render_answer(row.messages, row.answer, ended=row.ended)
        with torch.no_grad():
            logits = student.model(torch.tensor([prompt + answer])).logits[0].double()
        logp = logits.log_softmax(-1)
        total = sum(logp[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))
        assert scored.total == pytest.approx(total, abs=1e-4)
        assert scored.num_tokens == len(answer)


def test_the_stop_token_is_scored_only_when_it_ended(student):
    prompt = PROMPTS[0]
    ended, cut = answer_log_probs(
        student, [AnswerRow(prompt, "red", ended=True), AnswerRow(prompt, "red", ended=False)]
    )
    assert ended.num_tokens == cut.num_tokens + 1
    assert ended.total < cut.total


def test_an_empty_answer_without_its_stop_scores_nothing(student):
    (scored,) = answer_log_probs(student, [AnswerRow(PROMPTS[0], "", ended=False)])
    assert scored == (0.0, 0)


def test_a_student_asks_questions_of_its_own_up_to_a_special_token():
    student = make_tiny()
    keys = [str(n) for n in range(8)]
    asked = sample_questions(student, keys=keys, temperature=1.0, max_new_tokens=20, seed=1)
    assert len(set(asked)) > 1
    assert not any("<|" in question for question in asked)
    more = sample_questions(student, keys=keys[3:], temperature=1.0, max_new_tokens=20, seed=1)
    assert more == asked[3:]
    opening = student.template.render_opening()
    prompt = student.template.render_prompt([Message(role="user", content="hello")])
    assert prompt[: len(opening)] == opening
    assert student.tokenizer.decode(opening) == "<|user|>\n"
