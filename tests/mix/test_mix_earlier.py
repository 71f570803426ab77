"""What an earlier run was trained on, and what the base says of itself."""

from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import (
    BaseReplayConfig,
    DataConfig,
    PhaseConfig,
    Recipe,
    ReplayConfig,
    StudentConfig,
    TaxonomyConfig,
    TrainConfig,
)
from feldspar.errors import RecipeError
from feldspar.mix.base_rows import read_prompts
from feldspar.mix.earlier import rows_of_run
from feldspar.mix.phases import BASE_REPLAY
from feldspar.records import Conversation, Message, Phase, Source
from feldspar.runs import Run, write_rows


def rows_file(folder: Path, name: str, num_rows: int) -> Source:
    message = (Message(role="user", content=name),)
    rows = [Conversation(id=f"{name}{n}", source=name, messages=message) for n in range(num_rows)]
    path = folder / f"{name}.jsonl.zst"
    write_rows(path, rows)
    return Source(name=name, path=str(path), digest=name, num_samples=num_rows)


def phase(*sources: Source) -> Phase:
    return Phase(name="x", sources=sources)


def finished_run(path: Path) -> Path:
    recipe = Recipe(taxonomy=TaxonomyConfig(path="t"), student=StudentConfig(base="b"))
    with Run(path, recipe) as run:
        a, b = rows_file(path, "a", 3), rows_file(path, "b", 2)
        general = rows_file(path, BASE_REPLAY, 9)

        def phases_step():
            yield phase(a, general)
            yield phase(b, a, general)

        do_step(run, "phases", phases_step)
    return path


def test_rows_of_a_run_are_those_of_its_phases_once_without_base_replay(tmp_path):
    rows = rows_of_run(finished_run(tmp_path / "before"))
    assert [row.id for row in rows] == ["a0", "a1", "a2", "b0", "b1"]
    assert len(rows) == 5
    moved = (tmp_path / "before").rename(tmp_path / "moved")
    assert [row.id for row in rows_of_run(moved)] == [f"a{n}" for n in range(3)] + ["b0", "b1"]
    assert rows_of_run(moved).key == rows.key


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(RecipeError, match="no run that has come to its phases"):
        rows_of_run(tmp_path)


def test_a_recipe_says_at_once_what_does_not_fit_together():
    with pytest.raises(ValueError, match="exactly one of path and run"):
        DataConfig(name="d")
    with pytest.raises(ValueError, match="names either an earlier phase or data"):
        ReplayConfig(fraction=0.5)
    with pytest.raises(ValueError, match='either a `source` or `from = "base"`'):
        BaseReplayConfig(share=0.1)
    with pytest.raises(ValueError, match='either a `source` or `from = "base"`'):
        BaseReplayConfig.model_validate({"from": "base", "source": "x.jsonl"})
    with pytest.raises(ValueError, match="`prompts` go with"):
        BaseReplayConfig(source="x.jsonl", prompts="p.txt")
    lone = PhaseConfig(
        name="a", branches=("knowledge",), replay=(ReplayConfig(data="gone", share=0.1),)
    )
    with pytest.raises(ValueError, match=r"names data 'gone': no such \[\[data\]\]"):
        Recipe(
            taxonomy=TaxonomyConfig(path="t"),
            student=StudentConfig(base="b"),
            train=TrainConfig(phase=(lone,)),
        )


def test_a_recipe_with_the_base_as_source_comes_back_from_its_json():
    config = BaseReplayConfig.model_validate({"from": "base"})
    assert BaseReplayConfig.model_validate_json(config.model_dump_json()) == config
    assert config.drawn_from == "base"


def test_prompts_are_read_from_lines_and_from_rows(tmp_path):
    plain = tmp_path / "p.txt"
    plain.write_text("Why?\n\n  How? \n", encoding="utf-8")
    assert read_prompts(plain) == ["Why?", "How?"]
    rows = tmp_path / "p.jsonl"
    rows.write_text(
        '{"prompt": "a"}\n{"question": "b"}\n'
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]}\n'
    )
    assert read_prompts(rows) == ["a", "b", "c"]
    rows.write_text('{"prompt": "a"}\n{"body": 1}\n')
    with pytest.raises(RecipeError, match=r"p\.jsonl:2: no prompt"):
        read_prompts(rows)
    plain.write_text("\n")
    with pytest.raises(RecipeError, match="holds no prompt"):
        read_prompts(plain)
