"""Every shipped recipe parses; a wrong one is told its place and its cure."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from feldspar.config import (
    EvaluateConfig,
    Part,
    Recipe,
    TrainConfig,
    lay_settings,
    place_paths,
    read_recipe,
    world_parts,
)
from feldspar.errors import RecipeError

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
SMALL = '[taxonomy]\npath = "t"\n[student]\nbase = "world:student"\n'
READY = '[student]\nbase = "world:student"\n[[data]]\nname = "d"\npath = "d.jsonl"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_parses(path: Path) -> None:
    assert read_recipe(path).taxonomy.path


def test_the_default_phases_are_the_cards(tmp_path: Path) -> None:
    phases = read_recipe(write(tmp_path, SMALL)).train.phase
    assert [p.name for p in phases] == ["knowledge-short", "knowledge-long", "skills"]
    assert [r.phase for r in phases[2].replay] == ["knowledge-short", "knowledge-long"]
    assert phases[2].branches == ("foundational", "compositional")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALL + "[generate]\ntemprature = 1\n", "generate.temprature: unknown key"),
        (SMALL + "[train]\nlearning_rate = -1\n", "train.learning_rate: .*greater than 0, got -1"),
        ('[taxonomy]\npath = "t"\n', "student: is missing"),
        ('[student]\nbase = "b"\n', r"'knowledge-short' trains on .*no \[taxonomy\]; add"),
        (READY + '[[train.phase]]\nname = "a"\ndata = ["d"]\n', "'a' selects by exams"),
        (
            READY + '[[train.phase]]\nname = "a"\ndata = ["d"]\nselect = "last"\n'
            'branches = ["knowledge"]\n',
            "'a' trains on samples of leaves",
        ),
        (
            READY + '[[train.phase]]\nname = "a"\ndata = ["d"]\nselect = "last"\n'
            '[prefer]\naligned = "x"\nbase = "y"\n',
            r"\[prefer\] asks the questions of generated samples",
        ),
        (SMALL + "[train\n", "not TOML"),
        (
            SMALL + '[[train.phase]]\nname = "a"\nreplay = [{phase = "b", share = 0.1}]\n',
            "replays 'b', which is no earlier phase",
        ),
        (
            SMALL
            + '[[train.phase]]\nname = "a"\n[[train.phase]]\nname = "b"\nreplay=[{phase = "a"}]\n',
            "exactly one of fraction and share",
        ),
        (SMALL + '[[train.phase]]\nname = "a"\ndata = ["mine"]\n', r"no such \[\[data\]\]"),
    ],
)
def test_a_wrong_recipe_is_told_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        read_recipe(write(tmp_path, text))


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")


def test_settings_lie_over_the_recipe(tmp_path: Path) -> None:
    text = SMALL + '[[train.phase]]\nname = "a"\n[mix]\nbase_replay = {source = "x"}\n'
    settings = [
        "name=other",
        "train.learning_rate=3e-4",
        "train.phase.0.num_epochs=7",
        "mix.base_replay=none",
        'student.system_prompt="be kind"',
    ]
    recipe = read_recipe(write(tmp_path, text), settings)
    assert recipe.name == "other"
    assert recipe.train.learning_rate == 3e-4
    assert recipe.train.phase[0].num_epochs == 7
    assert recipe.mix.base_replay is None
    assert recipe.student.system_prompt == "be kind"


def test_a_recipe_is_laid_over_the_one_it_extends(tmp_path: Path) -> None:
    below = 'name = "below"\nseed = 5\n' + SMALL
    below += '[[train.phase]]\nname = "a"\nnum_epochs = 4\n[[train.phase]]\nname = "b"\n'
    below += '[[evaluate.exam]]\nname = "mine"\npath = "x"\n'
    (tmp_path / "below.toml").write_text(below)
    above = 'extends = "below.toml"\n[student]\nmax_length = 64\n[evaluate]\nexam = []\n'
    above += '[[train.phase]]\nname = "a"\nlength = "short"\n[[train.phase]]\nname = "c"\n'
    recipe = read_recipe(write(tmp_path, above), ["train.phase.1.num_epochs=9"])
    assert (recipe.name, recipe.seed, recipe.evaluate.exam) == (tmp_path.name, 5, ())
    assert (recipe.student.base, recipe.student.max_length) == ("world:student", 64)
    found = [(p.name, p.length, p.num_epochs) for p in recipe.train.phase]
    assert found == [("a", "short", 4), ("b", "all", 9), ("c", "all", 1)]


def test_recipes_that_extend_in_a_circle_or_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('extends = "recipe.toml"\n')
    with pytest.raises(RecipeError, match="extends itself"):
        read_recipe(write(tmp_path, 'extends = "other.toml"\n'))
    with pytest.raises(RecipeError, match=r"none\.toml: no such recipe"):
        read_recipe(write(tmp_path, 'extends = "none.toml"\n'))


@given(st.text(max_size=40))
def test_any_setting_is_taken_or_refused_in_one_line(setting: str) -> None:
    path = ROOT / "recipes" / "quickstart.toml"
    with contextlib.suppress(RecipeError):
        read_recipe(path, [setting])


def test_paths_are_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    recipe = read_recipe(write(tmp_path, SMALL))
    placed = place_paths(recipe, tmp_path, {"student": "/made/student"})
    assert placed.taxonomy.path == str((tmp_path / "t").resolve())
    assert placed.student.base == "/made/student"
    assert world_parts(recipe) == {"student"}


def test_a_hub_id_stays_what_it_is() -> None:
    tree = {"taxonomy": {"path": "t"}, "student": {"base": "ibm-granite/granite-7b-base"}}
    placed = place_paths(Recipe.model_validate(tree), Path("/recipes"), {})
    assert placed.student.base == "ibm-granite/granite-7b-base"
    assert placed.taxonomy.path == "/recipes/t"


def test_a_part_of_no_world_is_refused(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, SMALL))
    with pytest.raises(RecipeError, match=r"add a \[world\] table"):
        place_paths(recipe, tmp_path, {})


def test_training_defaults_are_the_papers() -> None:
    train = TrainConfig()
    assert (train.learning_rate, train.batch_samples, train.warmup_steps) == (2e-5, 3840, 385)
    assert train.betas == (0.9, 0.95)


def write_recipe(folder: Path, text: str, name: str = "r.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


TINY = '[taxonomy]\npath = "t"\n[student]\nbase = "b"\n'


def test_a_recipe_saved_with_a_mark_before_it_is_read(tmp_path: Path) -> None:
    below = write_recipe(tmp_path, f"\ufeffseed = 7\n{TINY}", "below.toml")
    path = write_recipe(tmp_path, f'\ufeffextends = "{below.name}"\r\n')
    assert read_recipe(path).seed == 7


def test_a_run_is_called_as_its_recipe_or_as_its_project(tmp_path: Path) -> None:
    assert read_recipe(write_recipe(tmp_path / "ferry", TINY, "recipe.toml")).name == "ferry"
    assert read_recipe(write_recipe(tmp_path / "ferry", TINY, "small.toml")).name == "small"
    assert read_recipe(write_recipe(tmp_path / ".ferry", TINY, "recipe.toml")).name == "recipe"
    named = write_recipe(tmp_path / "ferry", f'name = "pier"\n{TINY}', "recipe.toml")
    assert read_recipe(named).name == "pier"


@pytest.mark.parametrize(
    "extends", ["nan", "1", "[1]", "{a = 1}", '""', '["a", [""]]', "1979-05-27", "true"]
)
def test_extends_names_files(tmp_path: Path, extends: str) -> None:
    with pytest.raises(RecipeError, match="`extends` must be a recipe's file name"):
        read_recipe(write_recipe(tmp_path, f"extends = {extends}\n{TINY}"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed = " + "9" * 5000, "a number is too long"),
        ("seed = " + "[" * 5000, "nested too deep"),
        ("seed = 0x" + "f" * 9000, "a number of 36000 bits"),
        ("seed = 1.5", "seed: .*got 1.5"),
        ('name = "\\u001b[31m"', r"plain folder name, got '\\x1b\[31m'"),
    ],
)
def test_odd_toml_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why) as refused:
        read_recipe(write_recipe(tmp_path, f"{text}\n{TINY}"))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "setting",
    [
        "train.learning_rate=inf",
        "train.learning_rate=1e30",
        "train.learning_rate=nan",
        "generate.temperature=inf",
        "generate.temperature=1e30",
        "generate.samples_per_leaf=1000000000000",
        "generate.pairs_per_call=1000000",
        "student.lora={rank = 1000000}",
        "train.max_grad_norm=inf",
        "mix.held_out=nan",
        "taxonomy.chunk_tokens=10000000000000000",
    ],
)
def test_numbers_that_nobody_means_are_errors(tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match=setting.partition("=")[0].rpartition(".")[0]):
        read_recipe(write_recipe(tmp_path, TINY), [setting])


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:h7Gq2mZp9@host/v1",
        "https://h7Gq2mZp9@host/v1",
        "https://host/v1?api_key=h7Gq2mZp9",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    for setting in (
        f"teacher.endpoint={url}",
        f'teacher.endpoints=["{url}"]',
        f'judge={{endpoint = "{url}"}}',
        f'evaluate.server={{endpoint = "{url}"}}',
    ):
        with pytest.raises(RecipeError, match="key_variable") as refused:
            read_recipe(write_recipe(tmp_path, TINY), [setting])
        assert "h7Gq2mZp9" not in str(refused.value)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a" * 5000])
def test_a_path_that_cannot_be_one_is_told(tmp_path: Path, path: str) -> None:
    recipe = read_recipe(write_recipe(tmp_path, TINY), [f"taxonomy.path={path}"])
    with pytest.raises(RecipeError, match=r"path = .*no path"):
        place_paths(recipe, tmp_path, {})


def numbers_of(part: type[Part], seen: set[type[Part]]) -> Iterator[tuple[str, object]]:
    """Every number of a table and those within it, with its type."""
    seen.add(part)
    for name, kind in get_type_hints(part, include_extras=True).items():
        if name in part.model_fields:
            for inner in parts_in(kind):
                if inner not in seen:
                    yield from numbers_of(inner, seen)
            if limits_of(schema_of(kind)):
                yield f"{part.__name__}.{name}", kind


def parts_in(kind: object) -> list[type[Part]]:
    if isinstance(kind, type) and issubclass(kind, Part):
        return [kind]
    return [part for inner in get_args(kind) for part in parts_in(inner)]


def schema_of(kind: object) -> dict[str, Any]:
    return {} if parts_in(kind) else TypeAdapter(kind).json_schema()


def limits_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a type's schema that is of a number; empty where it is of none."""
    found = [schema, *schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    return next((one for one in found if one.get("type") in ("integer", "number")), {})


def test_every_number_has_limits_and_none_is_taken_outside_them() -> None:
    numbers = dict(numbers_of(Recipe, set()))
    assert len(numbers) > 80
    for name, kind in numbers.items():
        adapter = TypeAdapter(kind)
        schema = schema_of(kind)
        limits = limits_of(schema)
        low = limits.get("minimum", limits.get("exclusiveMinimum"))
        high = limits.get("maximum", limits.get("exclusiveMaximum"))
        assert None not in (low, high), name
        step = 1 if limits["type"] == "integer" else 1e-9
        below = low if "exclusiveMinimum" in limits else low - step
        above = high if "exclusiveMaximum" in limits else high * (1 + 1e-9) + step
        for outside in (below, above, 10**30, -(10**30), float("nan"), float("inf")):
            value = [outside] * len(schema["prefixItems"]) if "prefixItems" in schema else outside
            with pytest.raises(ValidationError):
                adapter.validate_python(value)


def test_a_benchmark_is_asked_in_one_way() -> None:
    """The items of two settings would be one exam's."""
    twice = [{"task": "mmlu", "num_fewshot": 0}, {"task": "arc_easy"}, {"task": "mmlu"}]
    with pytest.raises(ValidationError, match="has 'mmlu' twice"):
        EvaluateConfig.model_validate({"benchmark": twice})


@pytest.mark.parametrize("name", ["base", "merged", "sft", "round-1", "control-2", "a/b", "a\\b"])
def test_a_phase_is_not_called_as_another_checkpoint(name: str) -> None:
    """Its scores and answers would be found for the other's."""
    with pytest.raises(ValidationError, match="take another"):
        TrainConfig.model_validate({"phase": [{"name": name, "branches": ["knowledge"]}]})
    named = {"name": f"{name[0]}control-theory", "branches": ["knowledge"]}
    assert TrainConfig.model_validate({"phase": [named]}).phase[0].name == named["name"]


@pytest.mark.parametrize("setting", ["judge.model=j", "slurm.time=1:00", "train.merge.start=base"])
def test_a_table_that_a_recipe_lacks_can_be_set_in_one_that_was_read(setting: str) -> None:
    read = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
    assert {read.judge, read.slurm, read.train.merge} == {None}
    laid = lay_settings(read, [setting])
    assert len([part for part in (laid.judge, laid.slurm, laid.train.merge) if part]) == 1
