"""Samples before a run: they are the run's own, shown with what was asked and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_samples import BASKETS, CONFIG, LEAVES, SUMS, TEACHER, TOWN, generate
from tiny_run import from_a_shell

from feldspar.config import BudgetConfig, GenerateConfig
from feldspar.generate import LeafPreview, preview_leaves
from feldspar.progress import SILENT
from feldspar.records import ExamItem, Leaf
from feldspar.teacher import Budget, Journal, Spent, open_teacher


def preview(
    server: FakeTeacher,
    here: Path,
    num_samples: int,
    config: GenerateConfig = CONFIG,
    avoid: tuple[ExamItem, ...] = (),
) -> tuple[list[LeafPreview], Spent]:
    with Journal(here / "journal") as opened:
        budget = Budget(config.budget)
        teacher = open_teacher(TEACHER, server.url, opened, budget=budget)
        found = preview_leaves(
            LEAVES,
            config,
            teacher=teacher,
            judge=teacher,
            avoid=avoid,
            seed=1,
            num_samples=num_samples,
            progress=SILENT,
        )
        return found, budget.spent


def test_each_leaf_shows_its_first_samples_with_all_that_was_said(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        found, spent = preview(server, tmp_path, 3)
        num_calls = len(server.calls)
    assert [leaf.leaf for leaf in found] == [leaf.path for leaf in LEAVES]
    assert [len(leaf.samples) for leaf in found] == [3, 3, 3]
    assert spent.calls == num_calls
    stages = [[e.stage for e in leaf.samples[0].exchanges] for leaf in found]
    judged = ["judge-question", "skill-answer", "judge-answer"]
    assert stages == [
        ["skill-questions", *judged],
        ["skill-context", "skill-questions", *judged],
        ["knowledge-pairs", "judge-faithful", "judge-relevant"],
    ]
    for leaf in found:
        for shown in leaf.samples:
            assert shown.sample.question in shown.exchanges[-1].messages[0].content
            assert shown.sample.leaf == leaf.leaf
            assert "seen." in shown.exchanges[-1].reply
    first = found[0].samples[0]
    assert first.sample.answer == first.exchanges[2].reply


def test_the_run_finds_what_the_preview_paid_for(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with FakeTeacher() as server:
        without = generate(server, other)
        num_without = len(server.calls)
    with FakeTeacher() as server:
        found, _ = preview(server, tmp_path, 3)
        num_previewed = len(server.calls)
        assert generate(server, tmp_path) == without
        assert 0 < num_previewed < num_without
        assert len(server.calls) == num_without
    made = {sample.id: sample for sample in without}
    assert all(shown.sample.id in made for leaf in found for shown in leaf.samples)


def test_a_second_preview_asks_nothing_and_a_budget_holds_for_both(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        first, spent = preview(server, tmp_path, 2)
        num_calls = len(server.calls)
        again, spent_again = preview(server, tmp_path, 2)
        assert len(server.calls) == num_calls
    assert [[s.sample for s in leaf.samples] for leaf in again] == [
        [s.sample for s in leaf.samples] for leaf in first
    ]
    assert all(e.cached for leaf in again for s in leaf.samples for e in s.exchanges)
    assert spent_again == spent
    capped = CONFIG.model_copy(update={"budget": BudgetConfig(max_calls=4)})
    (tmp_path / "small").mkdir()
    with FakeTeacher() as server:
        found, spent = preview(server, tmp_path / "small", 2, capped)
        assert len(server.calls) <= 4
    assert spent.calls <= 4
    last = [shown.sample.rejected_because for shown in found[-1].samples]
    assert set(last) == {"budget: spent (max_calls = 4)"}


def test_verdicts_are_those_of_judge_and_filters(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        if call.stage == "judge-faithful":
            return "Explanation: not there.\nVerdict: NO"
        return answer_as_expert(call)

    with FakeTeacher(answer) as server:
        plain, _ = preview(server, tmp_path, 4)
        asked = plain[0].samples[0].sample
        item = ExamItem(
            id="x", exam="mine", question=asked.question, reference="?", branch="foundational"
        )
        found, _ = preview(server, tmp_path, 4, avoid=(item,))
    assert {s.sample.rejected_because for s in found[2].samples} == {"judge: not faithful"}
    assert plain[0].samples[0].sample.is_kept
    assert str(found[0].samples[0].sample.rejected_because).startswith("exam: asked there (mine x")


def test_passages_are_taken_from_all_over_the_documents(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        found, _ = preview(server, tmp_path, 8)
    chunks = [shown.sample.chunk for shown in found[2].samples]
    assert set(chunks) == {"c0", "c2"}
    assert leaf_of(found, SUMS).note == leaf_of(found, BASKETS).note == ""
    assert len(leaf_of(found, TOWN).samples) == 8


def leaf_of(found: list[LeafPreview], leaf: Leaf) -> LeafPreview:
    return next(one for one in found if one.leaf == leaf.path)


@pytest.mark.slow
def test_the_command_shows_prompts_replies_and_verdicts(tmp_path: Path) -> None:
    from_a_shell("init", "p", "--base", "world:tiny-llama", cwd=tmp_path)
    with (tmp_path / "p" / "recipe.toml").open("a") as file:
        file.write("\n[world]\n")
    document = next((tmp_path / "p").rglob("labradorite.md"))
    with document.open("a", encoding="utf-8") as file:
        file.write("\nPaul likes \x1b[31m[red]stones[/red].\n")
    done = from_a_shell("preview", "p/recipe.toml", "--samples", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1. kept" in done.stdout
    assert "You check an answer against a document." in " ".join(done.stdout.split())
    assert "judge-faithful: reply" in done.stdout
    assert r"\x1b[31m[red]stones[/red]" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    told = json.loads(
        from_a_shell("preview", "p/recipe.toml", "--samples", "1", "--json", cwd=tmp_path).stdout
    )
    assert told["calls_asked"] == 0
    assert told["spent"]["calls"] > 0
    sample = told["leaves"][0]["samples"][0]
    assert sample["sample"]["rejected_because"] is None
    assert sample["exchanges"][0]["messages"][0]["role"] == "user"
