import json

import pytest

from feldspar.config import ExamConfig
from feldspar.errors import RecipeError
from feldspar.evaluate.exams.read import all_exam_files, exam_files, read_exam, read_exams
from feldspar.records import ExamItem
from feldspar.runs import ROWS, write_rows


def read(tmp_path, *lines):
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return list(read_exam(ExamConfig(name="mine", path="exam.jsonl"), path))


def test_an_item_needs_only_question_and_answer(tmp_path):
    (item,) = read(tmp_path, {"question": "Capital of\u2028 France?", "answer": "Paris"})
    assert (item.exam, item.reference, item.accepted, item.match) == (
        "mine", "Paris", ("Paris",), "final",
    )  # fmt: skip
    assert item.origin == "file"
    assert item.use == "report"


def test_an_item_may_say_more(tmp_path):
    exact, long = read(
        tmp_path,
        {
            "question": "7 + 3?",
            "answer": "7 + 3 = 10.",
            "accepted": ["10", "ten"],
            "match": "exact",
            "context": "Sums.",
        },
        {"question": "Why?", "answer": "For many reasons.", "match": "likelihood"},
    )
    assert (exact.accepted, exact.context) == (("10", "ten"), "Sums.")
    assert long.accepted == ()


def test_the_id_goes_by_content_and_not_by_place(tmp_path):
    a, b = {"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}
    assert {i.id for i in read(tmp_path, a, b)} == {i.id for i in read(tmp_path, b, a)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "not an object"),
        ({"question": "x"}, "`answer` must be text, got 'None'"),
        ({"question": "", "answer": "y"}, "`question` must be text"),
        ({"question": "x", "answer": "y", "acepted": []}, "unknown key 'acepted'; there are accep"),
        ({"question": "x", "answer": "y", "accepted": "y"}, "`accepted` must be a list"),
        ({"question": "x", "answer": "y", "accepted": [1]}, "`accepted` must be text, got '1'"),
        ({"question": "x", "answer": "y", "match": "fuzzy"}, "`match` must be final, exact"),
        ({"question": "x", "answer": "y", "match": "choice"}, "`choices` must be a list"),
        ({"question": "x", "answer": "y", "choices": ["z"]}, "`choices` go with"),
        (
            {"question": "x", "answer": "y", "match": "choice", "choices": ["y "]},
            "`choices` repeat the answer",
        ),
        (
            {"question": "x", "answer": "some", "match": "number"},
            "each of `accepted` is one number",
        ),
        ({"question": "x", "answer": "2 or 3", "match": "number"}, "each of `accepted` is one nu"),
        ({"question": "x", "answer": "+", "match": "holds"}, "has a word or number"),
        ({"question": "first", "answer": "1"}, "asks what line 1 asks"),
        ('{"question": "x", "answer": "\\ud800"}', "lone surrogate"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, line, message):
    with pytest.raises(RecipeError, match=f"exam.jsonl:2: .*{message}"):
        read(tmp_path, {"question": "first", "answer": "1"}, line)


def test_no_file_and_no_items_are_errors(tmp_path):
    with pytest.raises(RecipeError, match="exam 'mine' has no items"):
        read(tmp_path)
    with pytest.raises(RecipeError, match="exam 'mine' cannot be read: No such file"):
        list(read_exam(ExamConfig(name="mine", path="x"), tmp_path / "gone.jsonl"))


def test_an_earlier_runs_leaf_exams_are_one_exam_here(tmp_path):
    item = ExamItem(
        id="i", exam="knowledge/a", leaf="knowledge/a", branch="knowledge", question="Who?",
        reference="Zorbo.", accepted=("Zorbo",), origin="held-out", use="select",
    )  # fmt: skip
    path = tmp_path / ROWS
    write_rows(path, [item])
    (found,) = read_exam(ExamConfig(name="before", path=str(path)), path)
    assert (found.id, found.exam, found.leaf) == ("i", "before", "")
    assert (found.question, found.origin, found.use) == ("Who?", "file", "report")


def test_what_is_to_be_kept_is_marked(tmp_path):
    (tmp_path / "old.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    for retention in (False, True):
        config = ExamConfig(name="mine", path=str(tmp_path), retention=retention)
        (item,) = read_exams(exam_files(config))
        assert (item.exam, item.is_retention) == ("old", retention)


def test_forms_need_what_they_compare_with(tmp_path):
    (item,) = read(tmp_path, {"question": "JSON?", "answer": '{"a": 1}', "match": "json"})
    assert item.match == "json"
    with pytest.raises(RecipeError, match="is JSON itself"):
        read(tmp_path, {"question": "JSON?", "answer": "{a", "match": "json"})
    with pytest.raises(RecipeError, match="is how many"):
        read(tmp_path, {"question": "List two.", "answer": "a, b", "match": "items"})


def write_exam(path, num_items):
    rows = [{"question": f"{i} + {i}?", "answer": str(2 * i)} for i in range(num_items)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_half_of_what_is_to_be_kept_chooses_and_is_not_reported(tmp_path):
    write_exam(tmp_path / "old.jsonl", 41)
    path = str(tmp_path / "old.jsonl")

    def select_ids(**more):
        config = ExamConfig(name="old", path=path, **more)
        items = list(read_exams(exam_files(config)))
        assert len(items) == 41
        return {item.question for item in items if item.use == "select"}

    apart = select_ids(retention=True)
    assert len(apart) == 20
    assert not select_ids()
    assert not select_ids(retention=True, select=0.0)
    assert len(select_ids(select=0.25)) == 10
    # The order of the file does not decide.
    lines = (tmp_path / "old.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "old.jsonl").write_text("".join(reversed(lines)))
    assert select_ids(retention=True) == apart


def test_a_name_that_reads_as_a_part_of_an_exam_is_refused(tmp_path):
    (tmp_path / "geo.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}))
    config = ExamConfig(name="Europe: capitals", path=str(tmp_path / "geo.jsonl"))
    with pytest.raises(RecipeError, match="holds a colon and a space"):
        all_exam_files([config])


def test_two_exams_of_one_name_are_refused(tmp_path):
    """They would be one: in the step's key, in scores, and in who chooses."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "geo.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    exams = [
        ExamConfig(name="new", path=str(tmp_path / "a")),
        ExamConfig(name="kept", path=str(tmp_path / "b"), retention=True),
    ]
    with pytest.raises(RecipeError, match=r"'new' and 'kept' both have an exam 'geo'"):
        all_exam_files(exams)
    (tmp_path / "b" / "geo.jsonl").rename(tmp_path / "b" / "art.jsonl")
    assert [exam.name for exam in all_exam_files(exams)] == ["geo", "art"]


def test_of_a_folder_some_exams_may_be_of_what_is_to_be_kept(tmp_path):
    for name in ("new", "old"):
        write_exam(tmp_path / f"{name}.jsonl", 4)
    config = ExamConfig(name="world", path=str(tmp_path), retention=("old",))
    items = list(read_exams(exam_files(config)))
    assert {(i.exam, i.is_retention, i.use) for i in items} == {
        ("new", False, "report"), ("old", True, "select"), ("old", True, "report"),
    }  # fmt: skip
    wrong = config.model_copy(update={"retention": ("odl",)})
    with pytest.raises(RecipeError, match="retention names 'odl'; there are: new, old"):
        exam_files(wrong)
