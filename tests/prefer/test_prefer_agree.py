import json

import pytest
from toy_models import ask

from feldspar.cli.agree import _print
from feldspar.config import (
    PreferConfig,
    Recipe,
    RewardDomainConfig,
    RewardPromptsConfig,
    StudentConfig,
)
from feldspar.errors import RecipeError
from feldspar.prefer.agree import agree
from feldspar.prefer.pairs import read_pairs
from feldspar.prefer.reward_bench import place_of_subset
from feldspar.progress import SILENT
from feldspar.trials import agree_with_pairs

STUDENT = StudentConfig(base="tiny")


def pairs_file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(number, chosen, rejected, **more):
    return {"prompt": ask(number), "chosen": chosen, "rejected": rejected, **more}


@pytest.mark.slow
def test_the_reward_agrees_where_the_control_without_reference_does_not(toy, tmp_path):
    """The aligned model was taught one answer: long or short makes no difference to the ratio."""
    rows = [pair(n, "It is lovely.", "It is dreadful.", subset="kind") for n in range(6)]
    rows += [pair(n, "It is dreadful.", "It is lovely.", subset="unkind") for n in range(3)]
    found = agree(
        read_pairs(pairs_file(tmp_path / "pairs.jsonl", rows)),
        PreferConfig(aligned=toy["aligned"], base=toy["base"]),
        student=STUDENT,
        log_folder=tmp_path,
    )
    by = {(a.subset, a.by): a for a in found}
    assert [a.subset for a in found[::3]] == ["kind", "unkind", "all"]
    assert by["kind", "log ratio"].share == 1
    assert by["unkind", "log ratio"].share == 0
    assert by["all", "log ratio"].share == pytest.approx(6 / 9)
    assert by["all", "log ratio"].num_pairs == 9
    assert by["kind", "log ratio"].interval.low < 1 == by["kind", "log ratio"].interval.high
    assert {by["kind", "without reference"].share, by["kind", "shorter"].share} <= {0, 1}


def test_pairs_longer_than_the_models_read_are_left_out_and_told(toy, tmp_path, caplog):
    rows = [pair(1, "It is lovely.", "It is dreadful."), pair(2, "It is lovely. " * 99, "No.")]
    pairs = read_pairs(pairs_file(tmp_path / "pairs.jsonl", rows))
    config = PreferConfig(aligned=toy["aligned"], base=toy["base"])
    assert [a.num_pairs for a in agree(pairs, config, student=STUDENT, log_folder=tmp_path)] == [
        1,
        1,
        1,
    ]
    assert "1 of 2 pairs are longer than the models read" in caplog.text
    with pytest.raises(RecipeError, match="all pairs are longer"):
        agree(pairs[1:], config, student=STUDENT, log_folder=tmp_path)


@pytest.mark.parametrize("line", ['{"prompt": "a"}', "no json", '{"prompt": 1, "chosen": "a"}'])
def test_a_line_that_is_no_pair_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "id": 7}\n\n' + line + "\n")
    with pytest.raises(RecipeError, match=r"pairs.jsonl:3: a pair is"):
        read_pairs(path)


def test_a_text_may_hold_other_line_ends(tmp_path):
    text = "one\u2028two\x85three"
    row = {"prompt": text, "chosen": "b", "rejected": "c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n")
    assert [p.prompt for p in read_pairs(tmp_path / "pairs.jsonl")] == [text]


def test_no_pairs_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecipeError, match="no pairs"):
        read_pairs(tmp_path / "empty.jsonl")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_pairs(tmp_path / "none.jsonl")


@pytest.mark.slow
def test_of_a_world_only_the_pair_is_made(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    path = pairs_file(tmp_path / "pairs.jsonl", [pair(1, "It is lovely.", "It is dreadful.")])
    recipe = Recipe.model_validate({
        "world": {"num_old": 12, "num_new": 10},
        "taxonomy": {"path": "world:taxonomy"},
        "student": {"base": "world:student"},
        "prefer": {"aligned": str(toy["aligned"]), "base": str(toy["base"])},
    })  # fmt: skip
    assert len(agree_with_pairs(recipe, tmp_path, str(path), SILENT)) == 3
    assert list(tmp_path.rglob("taxonomy"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_prompts_are_read_by_the_subsets_place_and_shown_beside_none(toy, tmp_path, capsys):
    rows = [pair(n, "It is lovely.", "It is dreadful.", subset="knowledge/toys") for n in range(2)]
    rows += [pair(n, "It is lovely.", "It is dreadful.", subset="refusals-offensive") for n in (3,)]
    said = RewardPromptsConfig(
        domain=(RewardDomainConfig.model_validate({"path": "knowledge", "text": "Be exact."}),),
        default="Be kind to people.",
    )
    found = agree(
        read_pairs(pairs_file(tmp_path / "pairs.jsonl", rows)),
        PreferConfig(aligned=toy["aligned"], base=toy["base"], reward_prompts=said),
        student=STUDENT,
        log_folder=tmp_path,
    )
    by = {(a.subset, a.by): a for a in found}
    assert by["knowledge/toys", "log ratio"].domain == "knowledge"
    assert by["refusals-offensive", "log ratio"].domain == "default"
    assert by["knowledge/toys", "log ratio without prompts"].domain == ""
    assert by["knowledge/toys", "log ratio without prompts"].share == 1
    assert by["all", "log ratio"].domain == ""
    _print(found)
    assert "read with the prompt of default: refusals-offensive" in capsys.readouterr().out


def test_subsets_of_the_benchmarks_have_their_places():
    assert place_of_subset("math-prm") == place_of_subset("Math") == "foundational_skills"
    assert place_of_subset("llmbar-natural") == "compositional_skills"
    assert place_of_subset("Factuality") == "knowledge"
    assert place_of_subset("donotanswer") == place_of_subset("Safety") == ""
    assert place_of_subset("knowledge/science") == "knowledge/science"
