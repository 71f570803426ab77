from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.teacher import parse_rating, parse_verdict

DECORATIONS = st.sampled_from(["{}", "**{}**", "`{}`", " {} ", "> {}", "{}\n", "# {}", "_{}_"])
EXPLANATIONS = st.sampled_from(
    ["", "Explanation: it adds 3 to 12.\n", "Explanation: fine, 3 of 3 steps are there.\n\n"]
)


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "YES.",
        "yes, because it does",
        "Verdict: YES",
        "**Verdict:** Yes",
        "Explanation: no fault found.\nVerdict: YES",
        "Verdict: **YES** - it fits",
        "Verdict is: yes",
        "Explanation: all good\n\nYES",
        '{"verdict": "yes"}',
        'Explanation: The answer "No." is supported by the document.\nVerdict: YES',
        "Answer: yes",
    ],
)
def test_yes(text: str) -> None:
    assert parse_verdict(text) is True


@pytest.mark.parametrize(
    "text",
    [
        "No",
        "no!",
        "Verdict: NO",
        "Explanation: yes and no.\nVerdict: NO",
        "No: it is harmful",
        "Explanation: it says that the answer is yes, which is wrong.\nVerdict: NO",
    ],
)
def test_no(text: str) -> None:
    assert parse_verdict(text) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Verdict:",
        "Verdict: YES or NO",
        "Verdict: Yes/No",
        "Verdict: YES\nVerdict: NO",
        "No doubt it is fine",
        "Verdict: no doubt about it",
        "Verdict: NOT SURE",
        "I know nothing of it",
        "YES\nNO",
        "maybe",
        "The answer: no, it seems.\nVerdict: unclear",
    ],
)
def test_neither_yes_nor_no(text: str) -> None:
    assert parse_verdict(text) is None


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: 3", 3),
        ("Total Score: 2", 2),
        ("2/3", 2),
        ("**Rating:** 3", 3),
        ("[[1]]", 1),
        ("Explanation: 2 of 4 steps are wrong.\nRating: 1", 1),
        ("Rating: 2 out of 3", 2),
        ("Rating: 2.0", 2),
        ("Score - 3", 3),
        ("Explanation: fine\n3", 3),
        ("Rating: 3. It is excellent.", 3),
        ("Rating: 1 (wrong)", 1),
        ("Explanation: The final score 2 is right.\nRating: 3", 3),
    ],
)
def test_ratings(text: str, rating: int) -> None:
    assert parse_rating(text) == rating


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rating:",
        "Rating: 4",
        "Rating: 0",
        "Rating: 2.5",
        "Rating: -1",
        "Rating: 1, 2, or 3",
        "Rating: 2-3",
        "Rating: 2/5",
        "Rating: 30",
        "Rating: 2\nRating: 3",
        "Rating: 100%",
        "Rating: 3%",
        "There are 3 faults in it",
        "Rating: two",
    ],
)
def test_no_rating(text: str) -> None:
    assert parse_rating(text) is None


@given(st.booleans(), st.sampled_from([str.upper, str.lower, str.title]), EXPLANATIONS, DECORATIONS)
def test_form_never_changes_a_verdict(value: bool, case: object, why: str, form: str) -> None:
    word = case("yes" if value else "no")
    assert parse_verdict(why + form.format(f"Verdict: {word}")) is value


@given(st.integers(-20, 20), EXPLANATIONS, DECORATIONS)
def test_only_1_to_3_are_ratings(value: int, why: str, form: str) -> None:
    rating = parse_rating(why + form.format(f"Rating: {value}"))
    assert rating == (value if 1 <= value <= 3 else None)


@given(st.text())
def test_any_text_is_read_without_a_fault(text: str) -> None:
    assert parse_verdict(text) in (True, False, None)
    assert parse_rating(text) in (1, 2, 3, None)


@given(st.text(alphabet="yesno YESNO.\n:/*123-,verdictrating", max_size=60))
def test_a_text_with_both_labels_is_never_believed(text: str) -> None:
    assert parse_verdict(f"Verdict: YES\n{text}\nVerdict: NO") is None
    assert parse_rating(f"Rating: 1\n{text}\nRating: 3") is None
