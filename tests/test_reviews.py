"""People's decisions on samples survive, merge, and change what is trained on and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import GenerateConfig, Recipe
from feldspar.errors import RunError
from feldspar.generate import judge_and_people, review_samples, reviews_of_run
from feldspar.records import ExamItem, Sample
from feldspar.reviews import (
    ReviewDecision,
    ReviewVerdict,
    add_decision,
    check_reviewer,
    note_honoured,
    read_decisions,
    read_honoured,
    read_reviews,
    review_key,
    settle,
)
from feldspar.runs import Rows, Run, open_step
from feldspar.verify import verify_run

START = datetime(2026, 11, 28, 12, tzinfo=UTC)
RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


def sample(n: int, rejected_because: str | None = None, answer: str = "") -> Sample:
    return Sample(
        id=f"id{n}",
        leaf="knowledge/town",
        branch="knowledge",
        question=f"Who bakes the bread number {n} of the town?",
        answer=answer or f"Zorbo bakes {n}.",
        rejected_because=rejected_because,
    )


SAMPLES = [
    *(sample(n) for n in range(4)),
    sample(4, "judge: not faithful"),
    sample(5, "duplicate: same question and answer (as id0)"),
]


def written() -> Iterator[Sample]:
    yield from SAMPLES


def say(
    n: int,
    verdict: ReviewVerdict,
    *,
    by: str = "anna",
    after: int = 0,
    question: str = "",
    answer: str = "",
) -> ReviewDecision:
    return ReviewDecision(
        sample=review_key(SAMPLES[n]),
        verdict=verdict,
        reviewer=by,
        at=START + timedelta(minutes=after),
        reason="wrong" if verdict == "rejected" else "",
        question=question,
        answer=answer,
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Run(tmp_path / "r", RECIPE) as opened:
        do_step(opened, "samples", written)
    return tmp_path / "r"


def rows_of(run: Path) -> Rows[Sample]:
    rows = open_step(run, "samples")
    assert rows is not None
    return rows


def kept(run: Path) -> list[tuple[str, str]]:
    reviewed = review_samples(rows_of(run), run, (), GenerateConfig())
    return [(s.id, s.answer) for s in reviewed if s.is_kept]


def test_decisions_are_carried_out_and_counted(run: Path) -> None:
    for decision in (
        say(0, "accepted"),
        say(1, "rejected"),
        say(2, "edited", question="Who bakes?", answer="Mirad."),
        say(4, "accepted"),
        say(5, "accepted"),
    ):
        add_decision(run, decision)
    assert kept(run) == [
        ("id0", "Zorbo bakes 0."),
        ("id2", "Mirad."),
        ("id3", "Zorbo bakes 3."),
        ("id4", "Zorbo bakes 4."),
    ]
    reviewed = reviews_of_run(run)
    assert reviewed is not None
    counts = reviewed.counts
    assert (counts.num_reviewed, counts.num_agreed, counts.num_left_out) == (5, 1, 1)
    assert (counts.num_edited, counts.num_taken_back, counts.num_gone) == (1, 1, 0)
    assert counts.sentence == (
        "anna reviewed 5 samples: 1 left out, 1 edited, 1 taken back from the judge, "
        "1 accepted as they are"
    )


def test_the_key_changes_with_what_is_changed_alone(run: Path) -> None:
    def key() -> str:
        return review_samples(rows_of(run), run, (), GenerateConfig()).key

    before = rows_of(run).key
    assert key() == before
    add_decision(run, say(0, "accepted"))
    add_decision(run, say(5, "rejected"))
    assert key() == before
    add_decision(run, say(1, "rejected"))
    without_one = key()
    assert without_one != before
    add_decision(run, say(1, "rejected", by="ben"))
    assert key() == without_one
    for reviewer in ("anna", "ben"):
        add_decision(run, say(1, "withdrawn", by=reviewer, after=1))
    assert key() == before


def test_what_an_exam_asks_does_not_come_in_by_an_edit(run: Path) -> None:
    item = ExamItem(
        id="1",
        exam="town",
        question="Who carries the lamp of the old mill in winter?",
        reference="Mirad",
        branch="knowledge",
    )
    add_decision(run, say(0, "edited", question=item.question, answer="Mirad."))
    reviewed = review_samples(rows_of(run), run, [item], GenerateConfig())
    assert "id0" not in {s.id for s in reviewed if s.is_kept}
    assert reviewed.counts.num_in_exams == 1


def test_reviewers_merge_and_a_rejection_wins(run: Path) -> None:
    add_decision(run, say(0, "rejected", by="anna"))
    add_decision(run, say(0, "accepted", by="ben", after=5))
    add_decision(run, say(1, "edited", by="anna", answer="First."))
    add_decision(run, say(1, "edited", by="ben", after=1, answer="Second."))
    add_decision(run, say(2, "rejected", by="ben"))
    add_decision(run, say(2, "accepted", by="ben", after=1))
    found = read_reviews(run)
    zero, one, two = (found[review_key(SAMPLES[n])] for n in range(3))
    assert (zero.verdict, zero.is_conflict) == ("rejected", True)
    assert (one.decision.answer, one.is_conflict) == ("Second.", True)
    assert (two.verdict, two.is_conflict) == ("accepted", False)


def test_decisions_hold_for_the_same_row_of_a_new_generation(run: Path) -> None:
    add_decision(run, say(1, "rejected"))
    add_decision(run, replace(say(0, "rejected"), sample="0" * 16))
    again = [replace(s, id=f"new{s.id}", draw=7) for s in reversed(SAMPLES)]
    with Run(run, RECIPE) as opened:
        do_step(opened, "samples", lambda: again)
    assert "newid1" not in dict(kept(run))
    reviewed = reviews_of_run(run)
    assert reviewed is not None
    assert reviewed.counts.num_gone == 1
    assert "(1 more is gone)" in reviewed.counts.sentence


def test_a_last_line_that_was_cut_off_is_no_decision(run: Path) -> None:
    add_decision(run, say(0, "accepted"))
    path = run / "reviews" / "anna.jsonl"
    with path.open("ab") as file:
        file.write(b'{"sample": "x", "verd')
    assert len(read_decisions(path)) == 1
    add_decision(run, say(1, "rejected"))
    assert [d.verdict for d in read_decisions(path)] == ["accepted", "rejected"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}", "line 2"),
        ("not json", "line 2"),
        (json.dumps({"sample": "s", "verdict": "maybe", "reviewer": "a", "at": "x"}), "line 2"),
    ],
)
def test_a_damaged_line_is_one_line_with_the_file(run: Path, line: str, why: str) -> None:
    add_decision(run, say(0, "accepted"))
    path = run / "reviews" / "anna.jsonl"
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RunError, match=rf"anna.jsonl: damaged \({why}") as caught:
        read_reviews(run)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("mend that line or delete it")
    assert verify_run(run).faults[0] == str(caught.value)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 65, "a\nb"])
def test_a_reviewers_name_never_leads_out_of_the_folder(name: str) -> None:
    with pytest.raises(RunError, match="no name for a reviewer"):
        check_reviewer(name)


def test_what_a_decision_needs_is_checked() -> None:
    with pytest.raises(ValueError, match="needs an answer"):
        say(0, "edited", answer=" ")
    with pytest.raises(ValueError, match="say why"):
        replace(say(0, "rejected"), reason="")
    with pytest.raises(ValueError, match="time zone"):
        replace(say(0, "accepted"), at=datetime(2026, 1, 1))


def test_what_was_honoured_is_noted_and_a_run_without_reviews_has_no_note(run: Path) -> None:
    note_honoured(run, review_samples(rows_of(run), run, (), GenerateConfig()).counts)
    assert read_honoured(run) is None
    add_decision(run, say(1, "rejected"))
    counts = review_samples(rows_of(run), run, (), GenerateConfig()).counts
    note_honoured(run, counts)
    assert read_honoured(run) == counts
    (run / "reviewed.json").write_text("{")
    assert "reviewed.json: damaged" in verify_run(run).faults[0]


def test_judge_and_people_are_compared(run: Path) -> None:
    found = settle(
        [
            say(0, "accepted"),
            say(1, "accepted"),
            say(2, "rejected"),
            say(4, "accepted"),
            # No judge decided on a duplicate.
            say(5, "rejected"),
        ]
    )
    people = judge_and_people(SAMPLES, found)
    assert people is not None
    assert (people.num_both_keep, people.num_judge_only, people.num_people_only) == (2, 1, 1)
    assert people.num_samples == 4
    assert people.agreement == 0.5
    # Judge keeps 3 of 4, people 3 of 4: chance 0.625, so (0.5 - 0.625) / 0.375.
    assert people.kappa == pytest.approx(-1 / 3)
    assert [(d.judge, d.people) for d in people.disagreements] == [
        ("kept", "rejected: wrong"),
        ("judge: not faithful", "accepted"),
    ]
    assert judge_and_people(SAMPLES, {}) is None


def test_a_clock_that_was_set_back_does_not_bring_an_older_word_back(run: Path) -> None:
    add_decision(run, say(1, "rejected", after=60))
    add_decision(run, say(1, "accepted", after=0))
    assert ("id1", "Zorbo bakes 1.") in kept(run)


def test_a_last_line_that_an_editor_did_not_end_counts(run: Path) -> None:
    add_decision(run, say(1, "rejected"))
    path = run / "reviews" / "anna.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert "id1" not in dict(kept(run))
    add_decision(run, say(2, "rejected"))
    assert len(read_decisions(path)) == 2
    assert not {"id1", "id2"} & dict(kept(run)).keys()


def test_an_edit_without_a_question_keeps_the_samples_own(run: Path) -> None:
    add_decision(run, say(2, "edited", answer="Mirad."))
    reviewed = review_samples(rows_of(run), run, (), GenerateConfig())
    assert [(s.question, s.answer) for s in reviewed if s.id == "id2"] == [
        (SAMPLES[2].question, "Mirad.")
    ]


def test_reviews_that_are_no_folder_are_not_taken_for_none(run: Path) -> None:
    (run / "reviews").write_text("x")
    with pytest.raises(RunError, match=r"reviews: damaged \(it is no folder\)"):
        read_reviews(run)


def test_what_is_wrong_with_a_line_is_said_and_not_where_pydantic_explains_it(run: Path) -> None:
    add_decision(run, say(1, "rejected"))
    path = run / "reviews" / "anna.jsonl"
    path.write_text("garbage\n")
    with pytest.raises(RunError, match="line 1: Invalid JSON: expected value"):
        read_reviews(run)
    path.write_text('{"sample": "a", "verdict": "maybe", "reviewer": "anna"}\n')
    with pytest.raises(RunError, match="line 1: verdict: Input should be 'accepted'"):
        read_reviews(run)
