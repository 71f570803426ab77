"""The first screen says what the figures say, and no more."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.generate.funnel import LeafFunnel, Reason, write_funnel
from feldspar.records import (
    Answer,
    Checkpoint,
    Chunk,
    ExamItem,
    Interval,
    Leaf,
    Sample,
    Score,
)
from feldspar.runs import Run, write_rows
from feldspar.stats.intervals import proportion_interval
from feldspar.steps import Workspace
from feldspar.teacher.budget import Spent
from feldspar.views.changes import find_turns
from feldspar.views.leaves import leaf_page_of, tree_of
from feldspar.views.links import studio_link
from feldspar.views.pages import Pages
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import ReasonCount, SampleSummary
from feldspar.views.verdict import verdict_of

NUM_ITEMS = 40
LEAVES = [
    Leaf(
        path=f"knowledge/stones/{name}",
        branch="knowledge",
        task_description="Stones.",
        seeds=(),
        chunks=tuple(
            Chunk(id=f"{name}{n}", document="stones.md", text="A stone.", num_tokens=2)
            for n in range(3)
        ),
    )
    for name in ("feldspar", "quartz")
]


def make_run(
    path: Path,
    right: dict[str, dict[str, int]],
    retention: str = "old",
    general: tuple[Score, ...] = (),
) -> RunFiles:
    """`right`: exam -> checkpoint -> how many of its items are right, the first ones."""
    items = [
        ExamItem(
            id=f"{exam} {n}",
            exam=exam,
            question=str(n),
            reference="x",
            accepted=("x",),
            is_retention=exam == retention,
        )
        for exam in right
        for n in range(NUM_ITEMS)
    ]

    def scores(workspace: Workspace) -> Iterator[Score]:
        (workspace.folder / "answers").mkdir()
        for name in ("base", "skills"):
            said = [
                Answer(
                    item=item.id,
                    exam=item.exam,
                    leaf="",
                    text="",
                    is_right=int(item.question) < right[item.exam][name],
                    log_likelihood=None,
                )
                for item in items
            ]
            write_rows(workspace.folder / "answers" / f"{name}.jsonl.zst", said)
            for exam, counts in right.items():
                yield Score(
                    checkpoint=name,
                    exam=exam,
                    metric="accuracy",
                    value=counts[name] / NUM_ITEMS,
                    interval=proportion_interval(counts[name], NUM_ITEMS),
                    num_items=NUM_ITEMS,
                )

    recipe = Recipe.model_validate(
        {"name": "stones", "taxonomy": {"path": "t"}, "student": {"base": "b"}}
    )
    with Run(path, recipe) as run:
        do_step(run, "leaves", lambda: LEAVES)
        do_step(run, "own-exams", lambda: items)
        do_step(run, "samples", samples)
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=9)])
        do_step(run, "scores", scores)
        if general:
            do_step(run, "general", lambda: general)
    return RunFiles(path)


def samples(workspace: Workspace) -> Iterator[Sample]:
    """Of feldspar three quarters are kept, of quartz one in ten."""
    funnels = [
        LeafFunnel(
            leaf=leaf.path,
            asked=40,
            answered=40,
            parsed=40,
            judged=kept,
            distinct=kept,
            clean=kept,
            kept=kept,
            reasons=(Reason(reason="judge: not faithful", count=40 - kept),),
        )
        for leaf, kept in zip(LEAVES, (30, 4), strict=True)
    ]
    write_funnel(workspace.folder / "funnel.json", funnels, Spent(80, 8000, 1.5))
    yield Sample(id="1", leaf=LEAVES[0].path, branch="knowledge", question="q", answer="a")


def summary(*chunks: str) -> SampleSummary:
    return SampleSummary(num_samples=80, num_kept=34, teachers=("llama",), chunks=frozenset(chunks))


def test_what_was_learned_and_what_was_lost_are_told_apart(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "r", {"new": {"base": 2, "skills": 36}, "old": {"base": 40, "skills": 24}}
    )
    verdict = verdict_of(run, summary())
    assert (verdict.learned.mood, verdict.learned.word) == ("good", "Yes")
    assert "rose by 85 points" in verdict.learned.sentence
    assert verdict.learned.difference is not None
    assert verdict.learned.difference.num_pairs == NUM_ITEMS
    assert (verdict.lost.mood, verdict.lost.word) == ("bad", "Something")
    assert "fell by 40 points" in verdict.lost.sentence
    assert verdict.released is not None
    assert verdict.released.checkpoint.phase == "skills"
    assert [kind for kind, *_ in verdict.scores] == ["taught", "to be kept"]


def test_a_small_change_is_not_told_from_noise(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "r", {"new": {"base": 20, "skills": 22}, "old": {"base": 40, "skills": 39}}
    )
    verdict = verdict_of(run, summary())
    assert (verdict.learned.mood, verdict.learned.word) == ("unsure", "Unclear")
    assert (verdict.lost.mood, verdict.lost.word) == ("good", "Nothing that shows")


def test_an_exam_that_fell_is_named_where_none_is_marked_as_retention(tmp_path: Path) -> None:
    right = {"new": {"base": 2, "skills": 36}, "old": {"base": 40, "skills": 24}}
    verdict = verdict_of(make_run(tmp_path / "r", right, retention=""), summary())
    assert verdict.lost.mood == "bad"
    assert verdict.lost.sentence.startswith("old fell by 40 points.")


@pytest.mark.parametrize(("low", "mood"), [(0.02, "bad"), (-0.01, "good")])
def test_without_an_exam_of_its_own_general_knowledge_says_what_was_lost(
    tmp_path: Path, low: float, mood: str
) -> None:
    general = (
        Score(checkpoint="skills", exam="general knowledge kept", metric="accuracy", value=0.69,
              interval=Interval(0.59, 0.77), num_items=98),
        Score(checkpoint="skills", exam="right to wrong beyond chance", metric="share of answers",
              value=0.07, interval=Interval(low, 0.13), num_items=274),
    )  # fmt: skip
    right = {"new": {"base": 2, "skills": 36}}
    verdict = verdict_of(make_run(tmp_path / "r", right, "", general), summary())
    assert verdict.lost.mood == mood
    assert "Of 98 general questions" in verdict.lost.sentence
    assert "69% are still right. 7 points" in verdict.lost.sentence


def test_the_next_steps_are_what_is_wrong_and_where(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "r", {"new": {"base": 2, "skills": 36}, "old": {"base": 40, "skills": 24}}
    )
    steps = verdict_of(run, summary("feldspar0", "feldspar1", "quartz0")).next_steps
    assert [step.place.page for step in steps] == ["exams", "leaf", "leaf"]
    assert "16 answers of old" in steps[0].title
    assert steps[1].title == "Mend knowledge/stones/quartz: 10% of what was asked for was kept"
    assert steps[2].title.startswith("3 of 6 passages have no kept sample")
    assert steps[2].place.shown == {"path": "knowledge/stones/quartz"}


def test_what_it_took_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"new": {"base": 2, "skills": 36}})
    taught = verdict_of(run, summary()).taught
    assert (taught.num_leaves, taught.num_documents) == (2, 1)
    assert (taught.num_kept, taught.num_asked, taught.teacher) == (34, 80, "llama")
    assert taught.spent == Spent(80, 8000, 1.5)


def test_the_tree_adds_up(tmp_path: Path) -> None:
    tree = tree_of(make_run(tmp_path / "r", {"new": {"base": 2, "skills": 36}}))
    assert (tree.num_leaves, tree.kept, tree.asked) == (2, 34, 80)
    [folder] = tree.children
    assert folder.name == "knowledge/stones"
    assert [(n.name, n.kept_grade) for n in folder.children] == [
        ("feldspar", "high"),
        ("quartz", "low"),
    ]


def test_a_leaf_in_anothers_folder_leaves_both_in_the_tree(tmp_path: Path) -> None:
    paths = ("knowledge/stones", "knowledge/stones/quartz", "knowledge/towns")
    recipe = Recipe.model_validate(
        {"name": "x", "taxonomy": {"path": "t"}, "student": {"base": "b"}}
    )
    with Run(tmp_path / "r", recipe) as run:
        do_step(run, "leaves", lambda: [replace(LEAVES[0], path=path) for path in paths])
    [folder] = tree_of(RunFiles(tmp_path / "r")).children
    stones, towns = folder.children
    assert (stones.name, stones.is_leaf, stones.num_leaves) == ("stones", False, 2)
    assert [(n.path, n.is_leaf) for n in (*stones.children, towns)] == [(p, True) for p in paths]


def test_a_leafs_page_names_its_exams_and_links_to_rows_that_are_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"new": {"base": 2, "skills": 36}})
    path, reason = LEAVES[0].path, "judge: not faithful"
    exams = tuple(
        Score(
            checkpoint="base",
            exam=exam,
            metric="accuracy",
            value=0.5,
            interval=proportion_interval(1, 2),
            num_items=2,
        )
        for exam in (f"leaf:{path}", f"choices:{path}")
    )
    for rejected, is_linked in (((), False), ((ReasonCount(path, reason, 2),), True)):
        page = leaf_page_of(run, path, replace(summary(), rejected=rejected))
        assert page is not None
        text = Pages(run, studio_link("r"), is_live=True).leaf(replace(page, exam=exams))
        assert ("Show all of these rows" in text) == is_linked
        assert all(f'<td data-label="exam">{name}</td>' in text for name in ("leaf", "choices"))


def test_a_leafs_page_tells_which_passages_nothing_teaches(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"new": {"base": 2, "skills": 36}})
    page = leaf_page_of(run, "knowledge/stones/quartz", summary("quartz1"))
    assert page is not None
    assert [p.is_covered for p in page.passages] == [False, True, False]
    assert [(s.name, s.count) for s in page.stages][::6] == [("asked", 40), ("kept", 4)]
    assert leaf_page_of(run, "knowledge/none", None) is None


def test_a_run_without_steps_has_a_verdict(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "taxonomy": {"path": "t"}, "student": {"base": "b"}}
    )
    with Run(tmp_path / "empty", recipe) as run:
        pass
    verdict = verdict_of(RunFiles(run.path), None)
    assert verdict.learned.mood == verdict.lost.mood == "none"
    assert verdict.released is None
    assert verdict.next_steps == ()


def test_a_loss_of_general_knowledge_is_told_though_an_exam_of_ones_own_is_kept(
    tmp_path: Path,
) -> None:
    general = (
        Score(checkpoint="skills", exam="general knowledge kept", metric="accuracy", value=0.69,
              interval=Interval(0.59, 0.77), num_items=98),
        Score(checkpoint="skills", exam="right to wrong beyond chance", metric="share of answers",
              value=0.3, interval=Interval(0.2, 0.4), num_items=274),
    )  # fmt: skip
    right = {"new": {"base": 2, "skills": 36}, "old": {"base": 40, "skills": 39}}
    lost = verdict_of(make_run(tmp_path / "r", right, "old", general), summary()).lost
    assert (lost.mood, lost.word) == ("bad", "Something")
    assert "30 points" in lost.sentence


def test_the_order_of_rounds_is_that_in_which_they_were_made(tmp_path: Path) -> None:
    """The run names the released one last; where it is the start again, that is `sft`."""
    for name in ("base", "skills", "round-1", "round-2", "round-10", "sft"):
        write_rows(tmp_path / f"{name}.jsonl.zst", [])

    def steps(*named: str) -> list[tuple[str, str]]:
        return [(turn.before, turn.after) for turn in find_turns(tmp_path, named, [])]

    assert steps("base", "skills", "control-1", "round-2", "round-10", "round-1") == [
        ("base", "skills"),
        ("skills", "round-1"),
        ("round-1", "round-2"),
        ("round-2", "round-10"),
        ("base", "round-1"),
    ]
    assert steps("base", "skills", "round-1", "sft") == [
        ("base", "skills"),
        ("skills", "round-1"),
        ("base", "sft"),
    ]
    assert steps("base", "control-theory") == [("base", "control-theory")]
    assert steps("base") == []


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        ("sft", "no round may be released (round-1: reward -0.1)"),
        (
            "round-2",
            "the best by MT-Bench; mean reward on held-out prompts 3.00, 1.00 at",
        ),
    ],
)
def test_why_a_round_or_the_start_is_released_is_told_as_it_was(
    tmp_path: Path, phase: str, reason: str
) -> None:
    def tuned(workspace: Workspace) -> Iterator[Checkpoint]:
        figures = {
            "released": False, "best_reward": 1, "mean_reward": 1, "random_reward": 1,
            "best_tokens": 1, "mean_tokens": 1, "length_correlation": 0, "num_prompts": 9,
            "num_picked": 9, "change_low": -1, "change_high": 1,
        }  # fmt: skip
        lines = [
            {"phase": "round-1", "held_out_before": 1.0, "held_out_after": 4.0,
             "withheld": "reward -0.1"},
            {"phase": "round-2", "held_out_before": 4.0, "held_out_after": 3.0, "withheld": ""},
        ][: 1 if phase == "sft" else 2]  # fmt: skip
        text = "".join(json.dumps(figures | line) + "\n" for line in lines)
        (workspace.folder / "rounds.jsonl").write_text(text)
        yield Checkpoint(path="p", digest="d", phase=phase, step=3)

    recipe = Recipe.model_validate({
        "taxonomy": {"path": "t"}, "student": {"base": "b"},
        "prefer": {"aligned": "a", "base": "b", "release": ["mt-bench", "reward"]},
        "evaluate": {"mt_bench": {}},
    })  # fmt: skip
    with Run(tmp_path / "r", recipe) as run:
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=9)])
        do_step(run, "preferred", tuned)
    released = verdict_of(RunFiles(run.path), None).released
    assert released is not None
    assert reason in released.reason
