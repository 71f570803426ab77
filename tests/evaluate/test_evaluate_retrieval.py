"""Questions with passages: which are shown, what is compared, and what a run says of it."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step
from tiny_run import RECIPE, feldspar, write_recipe

from feldspar.config import Recipe, RetrievalConfig
from feldspar.evaluate.retrieval import (
    ALONE,
    FOUND,
    RIGHT,
    WAYS,
    LeafAdvice,
    PassageIndex,
    read_advice,
    with_passages,
)
from feldspar.records import Answer, Chunk, ExamItem, Interval, Leaf, Score
from feldspar.runs import Run, write_rows
from feldspar.stats.intervals import Difference
from feldspar.steps import Workspace

TEXTS = (
    "The lighthouse of Velda was built in 1871.",
    "Barley is ground in the old mill.",
    "The ferry to Velda leaves on Mondays. A lighthouse shows it the way.",
)
LEAF = Leaf(
    path="knowledge/velda",
    branch="knowledge",
    task_description="Velda",
    seeds=(),
    chunks=tuple(Chunk(id=t[:5], document="d", text=t, num_tokens=8) for t in TEXTS),
)


def item(question: str, **changes: object) -> ExamItem:
    given = {"reference": "In 1871.", "accepted": ("1871",), "leaf": LEAF.path}
    given |= {"branch": "knowledge", "origin": "generated", "exam": f"leaf:{LEAF.path}"}
    return ExamItem(id=question[:4], question=question, **(given | changes))


def test_each_question_is_asked_alone_with_what_is_found_and_with_the_right_passage() -> None:
    asked = item("When was the lighthouse built?")
    shown = {i.exam: i for i in with_passages([LEAF], [asked], RetrievalConfig(num_passages=2))}
    assert shown.keys() == set(WAYS)
    assert shown[ALONE].context is None
    assert shown[RIGHT].context == f"Passage 1:\n{TEXTS[0]}"
    assert shown[FOUND].context == f"Passage 1:\n{TEXTS[0]}\n\nPassage 2:\n{TEXTS[2]}"
    assert {i.leaf for i in shown.values()} == {LEAF.path}
    assert {i.id.split(" ")[0] for i in shown.values()} == {asked.id}


def test_only_reported_knowledge_that_can_be_right_or_wrong_is_asked() -> None:
    items = [
        item("a", use="select"),
        item("b", match="likelihood"),
        item("c", branch="foundational"),
        item("d"),
        item("e", exam="mine", branch=None, leaf="", origin="file", is_retention=True),
    ]
    config = RetrievalConfig(exams=("mine",))
    asked = Counter(i.question for i in with_passages([LEAF], items, config))
    assert asked == {"d": 3, "e": 3}
    # An exam of what is to be kept is one of the three ways here, and not a group of its own.
    assert not any(i.is_retention for i in with_passages([LEAF], items, config))
    assert not list(with_passages([], items, config))


def test_passages_are_found_in_any_language() -> None:
    index = PassageIndex(
        [
            "\u5bcc\u58eb\u5c71\u306f\u9ad8\u3044\u3002",
            "\u7d0d\u8c46\u306f\u5927\u8c46\u3067\u3059\u3002",
        ]
    )
    assert index.find(["\u7d0d\u8c46\u306f\u4f55\u3067\u3059\u304b\u3002"], 1) == [
        ["\u7d0d\u8c46\u306f\u5927\u8c46\u3067\u3059\u3002"]
    ]
    assert len(index.find(["unknown words alone"], 5)[0]) == 2


@pytest.mark.parametrize(
    ("taught", "passages", "verdict"),
    [
        ((0.3, 0.1, 0.5), (0.0, -0.1, 0.1), "teach"),
        ((-0.3, -0.5, -0.1), (0.2, 0.1, 0.3), "retrieve"),
        ((0.0, -0.1, 0.1), (0.0, -0.1, 0.1), "either"),
        ((0.3, 0.1, 0.5), (0.2, 0.1, 0.3), "both"),
    ],
)
def test_a_verdict_needs_more_than_noise(
    taught: tuple[float, ...], passages: tuple[float, ...], verdict: str
) -> None:
    differences = [Difference(v, Interval(low, high), 50) for v, low, high in (taught, passages)]
    assert LeafAdvice("", 50, {}, *differences).verdict == verdict


@pytest.mark.slow
def test_a_run_compares_teaching_with_retrieving(tmp_path: Path, tiny: Path, cache: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(tiny.parent.parent, tmp_path, dirs_exist_ok=True)
    write_recipe(tmp_path, f"{RECIPE}\n[evaluate.retrieval]\nnum_passages = 2\n")
    done = feldspar("run", "recipe.toml", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    said = feldspar("compare", "tiny", "--json", "--runs", str(runs), cwd=tmp_path, cache=cache)
    whole, *leaves = json.loads(said.stdout)["retrieval"]
    assert whole["items"] == sum(leaf["items"] for leaf in leaves) > 0
    assert {row["way"] for row in whole["right"]} == set(WAYS)
    assert {leaf["leaf"].split("/")[0] for leaf in leaves} == {"knowledge"}
    text = feldspar("compare", "tiny", "--runs", str(runs), cwd=tmp_path, cache=cache).stdout
    assert "Teach or retrieve" in text


def test_items_of_no_leaf_count_once_among_all(tmp_path: Path) -> None:
    asked = [item("a1"), item("b2"), item("m3", exam="mine", leaf="", branch=None, origin="file")]
    ways = list(with_passages([LEAF], asked, RetrievalConfig(exams=("mine",))))

    def scores(workspace: Workspace) -> Iterator[Score]:
        for name in ("base", "skills"):
            path = workspace.folder / f"{name}.jsonl.zst"
            said = [
                Answer(item=i.id, exam=i.exam, leaf=i.leaf, text="", is_right=name != "base",
                       log_likelihood=None)
                for i in ways
            ]  # fmt: skip
            write_rows(path, said)
            yield Score(checkpoint=name, exam=ALONE, metric="accuracy", value=0,
                        interval=Interval(0, 1), num_items=3, answers_path=str(path))  # fmt: skip

    recipe = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
    with Run(tmp_path / "run", recipe) as run:
        do_step(run, "retrieval", scores)
    assert [(row.leaf, row.num_items) for row in read_advice(run.path)] == [("", 3), (LEAF.path, 2)]
