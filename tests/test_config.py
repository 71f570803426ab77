"""Every shipped recipe parses; a wrong one is told its place and its cure."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.config import Recipe, TrainConfig, place_paths, read_recipe, world_parts
from feldspar.errors import RecipeError

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
SMALL = '[taxonomy]\npath = "t"\n[student]\nbase = "world:student"\n'


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
        ('[student]\nbase = "b"\n', "taxonomy: is missing"),
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
    assert (recipe.name, recipe.seed, recipe.evaluate.exam) == ("recipe", 5, ())
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
