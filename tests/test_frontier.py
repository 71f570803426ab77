"""Arms of one recipe: what they are called, what they share, and how they are compared."""

import json
from pathlib import Path

import pytest
from tiny_run import feldspar, write_recipe

from feldspar.errors import RecipeError
from feldspar.frontier.arms import Arm, arm_runs, folder_name, parse_arms
from feldspar.frontier.epochs import equal_epochs
from feldspar.frontier.figures import Measured, compare_arms
from feldspar.frontier.plan import plan_study
from feldspar.frontier.study import run_study
from feldspar.progress import SILENT
from feldspar.runs import open_step, read_recipe_of
from feldspar.stats.intervals import proportion_interval
from feldspar.views.frontier import cells

SMALL = '[taxonomy]\npath = "t"\n[student]\nbase = "b"\n'


def test_arms_are_every_combination_under_short_names() -> None:
    arms = parse_arms([], ["train.learning_rate=1e-4,3e-4", "train.merge.weights=[1.0],[0.9, 0.8]"])
    assert [arm.name for arm in arms] == [
        "learning_rate=1e-4, weights=[1.0]",
        "learning_rate=1e-4, weights=[0.9, 0.8]",
        "learning_rate=3e-4, weights=[1.0]",
        "learning_rate=3e-4, weights=[0.9, 0.8]",
    ]
    assert arms[1].settings == ("train.learning_rate=1e-4", "train.merge.weights=[0.9, 0.8]")


def test_named_arms_set_several_keys() -> None:
    (plain, other) = parse_arms(["plain:", "no replay: a.b=[]; c=none"], [])
    assert (plain.name, plain.settings) == ("plain", ())
    assert (other.name, other.settings) == ("no replay", ("a.b=[]", "c=none"))
    assert parse_arms([], []) == [Arm(name="the recipe", settings=())]


@pytest.mark.parametrize(
    ("named", "varied", "message"),
    [
        (["x"], [], "--arm x: write it as NAME:"),
        (["x: y"], [], "--arm x: y: write it as NAME:"),
        ([], ["key"], "--vary key: write it as"),
        ([], ["key=1,"], "--vary key=1,: write it as"),
        ([], ["key=1,1"], "two arms are called 'key=1'"),
    ],
)
def test_what_cannot_be_read_is_told(named, varied, message) -> None:
    with pytest.raises(RecipeError) as told:
        parse_arms(named, varied)
    assert message in str(told.value)


def test_keys_that_end_alike_keep_their_whole_names() -> None:
    arms = parse_arms([], ["train.learning_rate=1", "prefer.learning_rate=2"])
    assert arms[0].name == "train.learning_rate=1, prefer.learning_rate=2"


def test_each_seed_is_one_more_of_run_and_world(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"seed = 4\n[world]\nseed = 7\n{SMALL}")
    runs = arm_runs(path, [], parse_arms([], ["train.learning_rate=1e-4,3e-4"]), 2)
    assert [(r.number, r.recipe.seed, r.recipe.world.seed) for r in runs] == [
        (0, 4, 7), (0, 4, 7), (1, 5, 8), (1, 5, 8),
    ]  # fmt: skip
    assert [r.recipe.train.learning_rate for r in runs] == [1e-4, 3e-4, 1e-4, 3e-4]
    assert len({r.recipe.name for r in runs}) == 4
    with pytest.raises(RecipeError, match=r"arm 'learning_rate=9': .*train"):
        arm_runs(path, [], parse_arms([], ["train.learning_rate=9"]), 1)


def test_a_folders_name_is_plain() -> None:
    name = folder_name(Arm(name="../a/b: \x07c" * 20, settings=()), 0)
    assert "/" not in name
    assert name.isprintable()
    assert name.endswith("-seed-1")
    assert len(name) < 110


def measured(name: str, learned: list[int], kept: list[int], **more) -> Measured:
    """Right answers of 50 items for each seed."""

    def values(counts: list[int]) -> dict[tuple[int, str], float]:
        return {
            (seed, f"{i}"): float(i < count) for seed, count in enumerate(counts) for i in range(50)
        }

    settings = {"trained_tokens": 10.0, "seconds": 2.0, "shared": ()} | more
    arm = Arm(name=name, settings=())
    exams = {"new": values(learned)}
    return Measured(arm=arm, learned=values(learned), kept=values(kept), exams=exams, **settings)


def test_the_front_is_what_no_other_arm_beats_on_both() -> None:
    base = measured("base", [5, 5], [50, 50], seconds=0.0)
    arms = [
        measured("whole", [49, 49], [40, 40]),
        measured("merged", [49, 48], [46, 46]),
        measured("half", [30, 30], [48, 48]),
        measured("worse", [29, 29], [40, 40]),
    ]
    rows = {row.name: row for row in compare_arms(base, arms)}
    assert [name for name, row in rows.items() if row.is_on_front] == ["whole", "merged", "half"]
    assert [name for name, row in rows.items() if row.has_learned_as_much] == ["whole", "merged"]
    assert rows["merged"].learned_by_seed == (0.98, 0.96)
    assert rows["merged"].kept_to_first.value == pytest.approx(0.12)
    assert rows["merged"].kept_to_first.interval.low > 0
    assert rows["whole"].kept_to_first is None
    assert rows["base"].kept.value == 1
    assert rows["half"].exams["new"].value == 0.6
    assert cells(rows["merged"])[0] == "merged *="
    assert cells(rows["base"])[-2:] == ["10", "-"]


def test_seeds_of_one_item_count_as_one_cluster() -> None:
    base = measured("base", [5], [50])
    one, three = (measured("a", [25] * n, [25] * n) for n in (1, 3))
    widths = [
        row.learned.interval.high - row.learned.interval.low
        for row in (compare_arms(base, [one])[1], compare_arms(base, [three])[1])
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_more_seeds_do_not_make_few_right_items_certain() -> None:
    base = measured("base", [5], [50])
    for arm in (measured("a", [50], [50]), measured("a", [50] * 3, [50] * 3)):
        assert compare_arms(base, [arm])[1].learned.interval == proportion_interval(50, 50)


def test_an_arm_that_sets_the_seed_is_no_study_of_seeds(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(SMALL)
    arms = parse_arms([], ["seed=1,2"])
    assert [run.recipe.seed for run in arm_runs(path, [], arms, 1)] == [1, 2]
    with pytest.raises(RecipeError, match="sets seed=1, so its 3 seeds would be one run"):
        arm_runs(path, [], arms, 3)


def test_without_exams_of_what_is_kept_there_is_no_kept_column() -> None:
    base, arm = measured("base", [5], []), measured("a", [9], [])
    (_, row) = compare_arms(base, [arm])
    assert row.kept is None
    assert cells(row)[3:5] == ["-", "-"]


@pytest.mark.parametrize(
    ("settings", "learned", "there"),
    [
        ([], "new fact", "new facts, leaf exams"),
        (["taxonomy.exam_fraction=0", "generate.exam_items=0"], "leaf exams", "new facts"),
        (["evaluate.exam=[]"], "new facts", "leaf exams"),
    ],
)
def test_an_exam_that_no_arm_has_is_refused_before_anything_is_made(
    tmp_path: Path, settings: list[str], learned: str, there: str
) -> None:
    (tmp_path / "new facts.jsonl").write_text('{"question": "Who?", "answer": "Zorbo."}\n')
    path = tmp_path / "r.toml"
    path.write_text(f'{SMALL}[[evaluate.exam]]\nname = "new facts"\npath = "new facts.jsonl"\n')
    runs = arm_runs(path, settings, parse_arms([], []), 1)
    with pytest.raises(RecipeError, match=f"no exam '{learned}'.* one of these: {there}$"):
        run_study(runs, tmp_path, tmp_path / "study", SILENT, learned_exams=[learned])
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_arms_share_what_they_can_and_go_on(tmp_path: Path, cache: Path) -> None:
    write_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text(
        (tmp_path / "recipe.toml").read_text()
        + '\n[[evaluate.exam]]\nname = "world"\npath = "world:exams"\n'
        + 'retention = ["old-knowledge"]\n'
    )
    command = (
        "frontier", "recipe.toml", "--set", "prefer=none", "--set", "name=rates",
        "--arm", "whole:",
        "--arm", "merged: train.merge.weights=[0.5]",
        "--arm", "rate: train.learning_rate=1e-4", "--json",
    )  # fmt: skip
    told = feldspar(*command, cwd=tmp_path, cache=cache)
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert [row["name"] for row in result["rows"]] == ["base", "whole", "merged", "rate"]
    whole, merged, rate = result["rows"][1:]
    assert whole["shared"] == []
    assert {"samples", "phases", "trained"} <= set(merged["shared"])
    assert {"samples", "phases"} <= set(rate["shared"])
    assert "trained" not in rate["shared"]
    assert whole["trained_tokens"] == merged["trained_tokens"] > 0
    root = tmp_path / "runs" / "rates-frontier"
    assert json.loads((root / "frontier.json").read_text())["rows"] == result["rows"]
    assert "<svg" in (root / "frontier.html").read_text()
    for folders in result["runs"].values():
        assert (root / folders[0] / "report.html").is_file()
        assert open_step(root / folders[0], "scores") is not None
    # A second time nothing is done again.
    again = feldspar(*command, cwd=tmp_path, cache=cache)
    assert json.loads(again.stdout)["rows"] == result["rows"]
    verified = feldspar("verify", str(root / result["runs"]["rate"][0]), cwd=tmp_path, cache=cache)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.slow
def test_epochs_come_near_to_the_first_arms_tokens(tiny: Path) -> None:
    recipe = read_recipe_of(tiny)
    train = recipe.train
    phases = tuple(p.model_copy(update={"num_epochs": 5}) for p in train.phase)
    other = recipe.model_copy(update={"train": train.model_copy(update={"phase": phases})})
    # The same rows: the first arm's own epochs come out, whatever the other arm said.
    equal = equal_epochs(other, tiny, tiny)
    assert [p.num_epochs for p in equal.train.phase] == [p.num_epochs for p in train.phase]


@pytest.mark.slow
def test_the_plan_says_what_is_shared(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    arms = parse_arms(
        ["whole:", "merged: train.merge.weights=[0.5]", "rate: train.learning_rate=1e-4"], []
    )
    whole, merged, rate = plan_study(
        arm_runs(tmp_path / "recipe.toml", [], arms, 1), tmp_path, SILENT
    )
    assert whole.shares == ()
    assert merged.shares == ("samples", "phases", "trained")
    assert rate.shares == ("samples", "phases")
    assert whole.calls > merged.calls
    assert (merged.optimizer_steps, rate.optimizer_steps) == (0, whole.optimizer_steps)


def test_an_arm_is_not_worse_for_its_seeds_being_many() -> None:
    """Three seeds of an item are one item: the standard error does not shrink with them."""
    base = measured("base", [5] * 9, [50] * 9)
    arms = [measured(name, [n] * 9, [50] * 9) for name, n in (("best", 26), ("other", 25))]
    assert [row.has_learned_as_much for row in compare_arms(base, arms)[1:]] == [True, True]
