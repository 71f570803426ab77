"""MT-Bench: the published protocol replayed on stored judgments, and whole against the embedded
judge, also a judge that is often of no use."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
from world_bench import judging, run_bench

from feldspar.config import ErrorRates, MTBenchConfig, StudentConfig
from feldspar.errors import RecipeError
from feldspar.evaluate.mt_bench.answers import Drawing, TurnAnswer, answer_questions
from feldspar.evaluate.mt_bench.files import (
    Question,
    find_mt_bench,
    read_answers,
    read_mt_bench,
    temperature_of,
)
from feldspar.evaluate.mt_bench.judging import (
    ComparedAnswers,
    Rated,
    compare_answers,
    rate_answers,
    rating_prompt,
    read_rating,
    read_winner,
)
from feldspar.evaluate.mt_bench.run import ScoreChats
from feldspar.evaluate.mt_bench.scores import mt_bench_scores
from feldspar.runs import read_rows

PUBLISHED = tiny_run.SHARED / "data" / "benchmarks" / "mt_bench"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="MT-Bench's files lie in shared/, for development alone"
)


def stored(name):
    text = (PUBLISHED / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@needs_published
def test_every_stored_rating_is_recovered():
    rows = [
        row for path in sorted((PUBLISHED / "model_judgment").iterdir()) for row in stored(path)
    ]
    assert len(rows) == 320
    assert [read_rating(row["judgment"]) for row in rows] == [row["score"] for row in rows]


@needs_published
def test_the_judge_is_shown_what_it_was_shown_then():
    bench = read_mt_bench(find_mt_bench(MTBenchConfig(data=str(PUBLISHED))))
    questions = {question.id: question for question in bench.questions}
    said = read_answers(PUBLISHED / "model_answer" / "medusa-vicuna-7b-v1.3-1.jsonl")
    answers = {(q, turn): text for q, texts in said.items() for turn, text in enumerate(texts, 1)}
    rows = stored("model_judgment/gpt-4_single.medusa-vicuna-7b-v1.3-1.jsonl")
    for row in rows:
        system, user = rating_prompt(bench, questions[row["question_id"]], answers, row["turn"])
        assert user.content == row["user_prompt"], (row["question_id"], row["turn"])
        assert ("[[rating]]" in system.content) == (row["turn"] == 2)
    assert sum(len(q.references) == 2 for q in bench.questions) == 30
    greedy = {q.category for q in bench.questions if temperature_of(q) == 0}
    assert greedy == {"extraction", "math", "coding", "reasoning"}


@needs_published
def test_the_stored_scores_give_the_published_mean_by_category_and_turn():
    categories = {row["question_id"]: row["category"] for row in stored("question.jsonl")}
    rows = stored("model_judgment/gpt-4_single.vicuna-7b-v1.3.jsonl")
    judged = [
        Rated(
            question=row["question_id"], category=categories[row["question_id"]], turn=row["turn"],
            run=1, rating=read_rating(row["judgment"]), said=row["judgment"],
        )
        for row in rows
    ]  # fmt: skip
    scores = scored(judged)
    ratings = [row["score"] for row in rows]
    assert scores["mt-bench"].value == pytest.approx(sum(ratings) / 160)
    assert scores["mt-bench"].value == pytest.approx(6.0, abs=0.15)  # published: 6.00
    low, high = scores["mt-bench"].interval
    assert low < scores["mt-bench"].value < high
    assert scores["mt-bench: math"].num_items == 20
    assert scores["mt-bench: turn 1"].value > scores["mt-bench: turn 2"].value


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[7]]", 7),
        ("as said in [2], Rating: [[8.5]]", 8.5),
        ("Rating: [6]", 6),
        ("Rating: [[85]]", None),
        ("Rating: [[0]]", None),
        ("[[rating]]: 7", None),
        ("Rating: 7", None),
        ("", None),
    ],
)
def test_a_rating_is_read_as_published_and_must_be_one(text, rating):
    assert read_rating(text) == rating


def test_a_winner_is_read():
    said = ["so [[A]]", "so [[B]]", "so [[C]]", "so [[D]]"]
    assert [read_winner(text) for text in said] == ["A", "B", "tie", None]


def scored(judged):
    scores = mt_bench_scores("m", judged, num_resamples=200, seed=1, settings="s", answers_path="p")
    return {s.exam if s.metric != "judge errors" else "errors": s for s in scores}


def rated(question, rating, run=1, turn=1):
    return Rated(question=question, category="c", turn=turn, run=run, rating=rating, said="")


def test_what_cannot_be_read_is_an_error_and_no_score():
    scores = scored([rated(1, 8.0), rated(2, None), rated(3, 4.0), rated(4, None)])
    assert (scores["mt-bench"].value, scores["mt-bench"].num_items) == (6.0, 2)
    assert (scores["errors"].value, scores["errors"].num_items) == (0.5, 4)
    assert list(scored([rated(1, None)])) == ["errors"]


def test_several_runs_have_a_mean_and_a_spread():
    scores = scored([rated(q, 5.0 + run, run=run) for run in (1, 2, 3) for q in (1, 2)])
    assert scores["mt-bench"].value == 7.0
    assert scores["mt-bench: run 3"].value == 8.0
    assert scores["mt-bench"].settings.endswith("3 runs: mean 7.00, sd 1.00, 6.00 to 8.00")


def test_wins_count_only_in_both_orders():
    won = [ComparedAnswers(question=i, category="c", turn=1, run=1, won=w, said=("", ""))
           for i, w in enumerate((1.0, 0.5, 0.5, None))]  # fmt: skip
    scores = scored(won)
    assert scores["mt-bench"].metric == "win rate"
    assert scores["mt-bench"].value == pytest.approx(2 / 3)


def test_without_the_files_a_message_says_where_they_are(tmp_path):
    for config in (MTBenchConfig(), MTBenchConfig(data=str(tmp_path))):
        with pytest.raises(RecipeError, match=r"lm-sys/FastChat.*fetch = true"):
            find_mt_bench(config)


# The whole of it, on questions about a world.


def test_questions_of_one_turn_may_stand_beside_those_of_two(tmp_path, monkeypatch):
    """Those of one temperature had nobody to ask at the second turn."""
    questions = [
        Question(id=1, category="writing", turns=("a",)),
        Question(id=2, category="math", turns=("b", "c")),
    ]
    asked = []

    def said(_, posed, runs, turn, *rest):
        assert posed, "nobody is asked"
        for question, run in posed:
            asked.append((question.id, turn))
            yield TurnAnswer(
                question=question.id, turn=turn, run=run, text=question.turns[turn - 1], ended=True
            )

    monkeypatch.setattr("feldspar.evaluate.mt_bench.answers._answer", said)
    (answers,) = answer_questions(
        None, questions, Drawing(8, 1), num_runs=1, kept_path=tmp_path / "kept"
    )
    assert answers == {(1, 1): "a", (2, 1): "b", (2, 2): "c"}
    assert sorted(asked) == sorted(answers)


@pytest.mark.slow
def test_one_checkpoint_at_a_time_is_rated_as_among_others(bench, checkpoint, tmp_path):
    with judging(tmp_path, ErrorRates()) as judge:
        expected = run_bench(bench, checkpoint, judge, tmp_path / "all")
        rates = {}
        for mode in ("single", "pairwise"):
            config = MTBenchConfig(data=str(bench), max_new_tokens=8, mode=mode)
            rates[mode] = ScoreChats(
                read_mt_bench(find_mt_bench(config)), config, base=checkpoint, judge=judge,
                student=StudentConfig(base="tiny", device="cpu"), num_resamples=50,
                folder=tmp_path / mode, seed=1,
            )  # fmt: skip
        rating, errors = rates["single"](replace(checkpoint, phase="round-1"))
        won, _ = rates["pairwise"](replace(checkpoint, phase="round-1"))
    assert (rating.checkpoint, rating.metric, errors.metric) == (
        "round-1",
        "rating",
        "judge errors",
    )
    assert rating.value == expected[0].value
    assert (won.metric, won.value) == ("win rate", 0.5)  # against itself
    assert rates["single"].key != rates["pairwise"].key


@pytest.mark.slow
def test_a_round_with_more_room_is_answered_anew(bench, checkpoint, tmp_path):
    """Answers of other settings in the same folder were taken for its own."""
    lengths = []
    with judging(tmp_path, ErrorRates()) as judge:
        for max_new_tokens in (4, 12):
            config = MTBenchConfig(data=str(bench), max_new_tokens=max_new_tokens)
            rate = ScoreChats(
                read_mt_bench(find_mt_bench(config)), config, base=checkpoint, judge=judge,
                student=StudentConfig(base="tiny", device="cpu"), num_resamples=50,
                folder=tmp_path / "rounds", seed=1,
            )  # fmt: skip
            scores = rate(replace(checkpoint, phase="round-1"))
            folder = Path(scores[0].answers_path).parents[1] / "answers"
            answers = [a for path in folder.rglob("*.zst") for a in read_rows(path, TurnAnswer)]
            lengths.append(sum(len(answer.text) for answer in answers))
    assert lengths[0] < lengths[1]


def right_answers(bench):
    said = read_answers(bench / "right.jsonl")
    return {(q, turn): text for q, texts in said.items() for turn, text in enumerate(texts, 1)}


def test_the_embedded_judge_grades_by_the_truth_in_both_orders(bench, tmp_path):
    files = read_mt_bench(find_mt_bench(MTBenchConfig(data=str(bench))))
    right = right_answers(bench)
    wrong = dict.fromkeys(right, "Nobody knows.")
    with judging(tmp_path, ErrorRates()) as judge:
        for answers, rating in ((right, 10), (wrong, 1)):
            judged = asyncio.run(rate_answers(judge, files, answers, 1))
            assert [one.rating for one in judged] == [rating] * 20
        for pair, won in (((right, wrong), 1.0), ((wrong, right), 0.0), ((right, right), 0.5)):
            compared = asyncio.run(compare_answers(judge, files, pair, 1))
            assert [one.won for one in compared] == [won] * 20


def test_a_judge_of_nonsense_is_counted_and_makes_no_score(bench, checkpoint, tmp_path, caplog):
    with judging(tmp_path, ErrorRates(off_format=0.3)) as judge:
        scores = run_bench(bench, checkpoint, judge, tmp_path, num_runs=3)
        asked = judge.num_asked
        again = run_bench(bench, checkpoint, judge, tmp_path, num_runs=3)
        assert (judge.num_asked, again) == (asked, scores)
    errors = next(s for s in scores if s.metric == "judge errors")
    assert (errors.num_items, 0.15 < errors.value < 0.45) == (60, True)
    assert "could not be read" in caplog.text
    rating = next(s for s in scores if s.exam == "mt-bench" and s.metric == "rating")
    assert rating.num_items == 60 - round(60 * errors.value)
    judged = list(read_rows(Path(rating.answers_path), Rated))
    assert sum(one.rating is None for one in judged) == round(60 * errors.value)
    assert rating.value == pytest.approx(
        sum(one.rating for one in judged if one.rating is not None) / rating.num_items
    )


def test_pairs_are_compared_with_the_answers_of_a_file(bench, checkpoint, tmp_path):
    with judging(tmp_path, ErrorRates()) as judge:
        baseline = str(bench / "right.jsonl")
        scores = run_bench(bench, checkpoint, judge, tmp_path, mode="pairwise", baseline=baseline)
    assert [s.value for s in scores if s.exam == "mt-bench"] == [0.0, 0.0]
    assert scores[0].settings.count(", against right; ") == 1
