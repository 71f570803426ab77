"""A round's prompts are shown with all their answers, the best reward first."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from by_hand import do_step

from feldspar.config import Recipe
from feldspar.records import Candidate, Checkpoint, Message, Prompt
from feldspar.runs import Run, write_rows
from feldspar.steps import Workspace
from feldspar.views.preference import PROMPTS_PER_ROUND, preference_of
from feldspar.views.run_files import RoundFigures, RunFiles

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})
FIGURES = RoundFigures(
    phase="round-1", released=True, best_reward=2.0, mean_reward=1.0, random_reward=1.0,
    best_tokens=4.0, mean_tokens=4.0, length_correlation=0.0, num_prompts=20, num_picked=20,
    held_out_before=0.0, held_out_after=1.0, change_low=0.5, change_high=1.5,
    domains={"knowledge": 12, "default": 8},
)  # fmt: skip


def prompts() -> Iterator[Prompt]:
    for n in range(20):
        asked = (Message(role="user", content=f"question {n}?"),)
        yield Prompt(id=f"p{n}", source="leaf", messages=asked)


def candidates() -> Iterator[Candidate]:
    for n in range(20):
        for draw, reward in enumerate((0.5, 2.0, -1.0, 0.5)):
            yield Candidate(
                prompt=f"p{n}",
                draw=draw,
                text=f"<b>{reward}",
                ended=True,
                num_tokens=3,
                reward=reward,
                domain="knowledge" if n == 1 else "",
            )


def preferred(workspace: Workspace) -> list[Checkpoint]:
    (workspace.folder / "round-1").mkdir()
    write_rows(workspace.folder / "round-1" / "candidates.jsonl.zst", candidates())
    line = json.dumps(asdict(FIGURES))
    (workspace.folder / "rounds.jsonl").write_text(f"{line}\n")
    return [Checkpoint(path="p", digest="d", phase="round-1")]


def test_prompts_are_shown_with_their_answers(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        do_step(run, "prompts", prompts)
        do_step(run, "preferred", preferred)
    shown = preference_of(RunFiles(tmp_path / "r")).prompts
    assert len(shown) == PROMPTS_PER_ROUND
    assert shown[1].question == "question 1?"
    assert [(a.candidate.reward, a.num_drawn) for a in shown[1].answers] == [
        (2.0, 1),
        (0.5, 2),
        (-1.0, 1),
    ]
    assert shown[1].num_drawn == 4
    assert [prompt.domain for prompt in shown[:3]] == ["", "knowledge", ""]


def test_what_the_reward_pair_reads_first_is_shown(tmp_path: Path) -> None:
    domain = {
        "path": "knowledge",
        "text": "Be exact.",
        "examples": [{"question": "?", "answer": "!"}],
    }
    prefer = {
        "aligned": "a",
        "base": "b",
        "reward_prompts": {"default": "Be kind.", "domain": [domain]},
    }
    recipe = Recipe.model_validate({**RECIPE.model_dump(exclude_defaults=True), "prefer": prefer})
    with Run(tmp_path / "r", recipe) as run:
        do_step(run, "prompts", prompts)
        do_step(run, "preferred", preferred)
    view = preference_of(RunFiles(tmp_path / "r"))
    assert view.unit == "nats"
    assert view.domains == (
        ("knowledge", "Be exact.", 1, 12),
        ("default", "Be kind.", 0, 8),
    )
