from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_samples import BASKETS, CONFIG, SUMS, TOWN, examine, generate, reasons

from feldspar.config import GenerateConfig, PipelineConfig
from feldspar.errors import RecipeError
from feldspar.generate import asking_files, estimate, read_funnel

DOCS = Path(__file__).parents[2] / "docs" / "generation.md"


def expert_with_doubts(call: Call) -> str:
    """The second opinion on every other sum is wrong."""
    if call.stage != "second-opinion":
        return answer_as_expert(call)
    total = sum(int(number) for number in re.findall(r"\d+", call.prompt))
    return str(total + total % 2)


def own(here: Path, text: str, *leaves: str) -> GenerateConfig:
    path = here / "own.py"
    path.write_text(text)
    pipeline = PipelineConfig(file=str(path), function="write", leaves=leaves or (SUMS.path,))
    return CONFIG.model_copy(update={"pipeline": (pipeline,)})


def num_calls(config: GenerateConfig) -> int:
    return sum(cost.calls for cost in estimate([SUMS], config))


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    section = DOCS.read_text().partition("## A pipeline of your own")[2].partition("\n## ")[0]
    recipe, code = re.findall(r"```(?:toml|python)\n(.*?)```", section, re.S)
    (tmp_path / "twice.py").write_text(code)
    (given,) = tomllib.loads(recipe)["generate"]["pipeline"]
    pipeline = PipelineConfig(**{**given, "file": str(tmp_path / "twice.py")})
    config = CONFIG.model_copy(update={"pipeline": (pipeline,)})
    with FakeTeacher(expert_with_doubts) as server:
        samples = generate(server, tmp_path, config=config)
        stages = server.stages()
        server.calls.clear()
        assert generate(server, tmp_path, config=config) == samples
        assert not server.calls
    sums = [sample for sample in samples if sample.leaf == SUMS.path]
    assert stages["second-opinion"] == len(sums) == 8
    assert stages["judge-question"] == 4
    assert reasons(sums).keys() == {"kept", "judge: not agreed"}
    for sample in sums:
        assert sample.is_kept == (int(sample.answer.rpartition("= ")[2].rstrip(".")) % 2 == 0)
    funnel = read_funnel(tmp_path / "funnel.json").leaves[0]
    assert funnel.kept == reasons(sums)["kept"]
    assert [r.reason for r in funnel.reasons] == ["judge: not agreed"]
    more = num_calls(config) - num_calls(CONFIG)
    assert more == (4 - 3) * 8 - 2 + (4 - 3) * 4 - 1


def test_its_calls_are_made_once_and_its_exam_is_of_its_making(tmp_path: Path) -> None:
    text = """
from feldspar.generate import Draft
async def write(request, writers):
    said = await writers.ask("own", f"Say {request.draw} of {request.count}.", request)
    draft = Draft(request=request, index=0, question=said, answer="Yes.")
    async def check(draft, writers):
        await writers.judge_by(f"Is {draft.question} well said?", "well-said", draft)
    return [await writers.finish(draft, check)]
"""

    def answer(call: Call) -> str:
        if call.stage == "judge-well-said":
            return "Verdict: NO" if "3" in call.prompt else "Verdict: YES"
        return f"Who said {call.prompt}?" if call.stage == "own" else answer_as_expert(call)

    config = own(tmp_path, text)
    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[SUMS], config=config)
        items = examine(server, tmp_path, leaves=[SUMS], config=config)
        assert server.stages().keys() == {"own", "judge-well-said"}
        unjudged = config.model_copy(update={"judge": False})
        assert generate(server, tmp_path, leaves=[SUMS], config=unjudged) != samples
    assert {j.criterion for sample in samples for j in sample.judgments} == {"well-said"}
    assert {item.origin for item in items} == {"held-out", "generated"}


def test_the_deepest_place_counts_and_a_place_without_leaves_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "async def write(request, writers): return []"
    config = own(tmp_path, text, "foundational_skills", "knowledge/no/such")
    with FakeTeacher() as server, caplog.at_level(logging.WARNING):
        samples = generate(server, tmp_path, config=config)
    assert {sample.leaf for sample in samples} == {BASKETS.path, TOWN.path}
    assert "no leaf lies in 'knowledge/no/such'" in caplog.text
    assert "'foundational_skills'" not in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def write(request, writers): return []", "write must be an `async def`"),
        ("", "there is no function 'write'"),
        (
            "async def write(request, writers):\n  return 1 / 0",
            r"own.py:2: write raised ZeroDivision",
        ),
        ("async def write(:", "own.py:1: write raised SyntaxError"),
        ("import nowhere_at_all", "raised ModuleNotFoundError while it was read"),
        ("async def write(request, writers): return [1]", "must return a list of samples"),
        (
            "from feldspar.generate import Draft\nasync def write(request, writers):\n"
            "  d = Draft(request=request, index=0)\n  return [await writers.finish(d)] * 2",
            "gave a sample twice",
        ),
    ],
)
def test_a_fault_in_the_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with FakeTeacher() as server, pytest.raises(RecipeError, match=says) as caught:
        generate(server, tmp_path, leaves=[SUMS], config=own(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told_and_a_present_one_counts_in_the_key(tmp_path: Path) -> None:
    config = own(tmp_path, "async def write(request, writers): return []")
    assert tmp_path / "own.py" in asking_files(config).values()
    (tmp_path / "own.py").unlink()
    with FakeTeacher() as server, pytest.raises(RecipeError, match="cannot be read"):
        generate(server, tmp_path, config=config)
