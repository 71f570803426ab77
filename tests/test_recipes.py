"""The shipped recipes: they say what their sources say, plan with nothing at hand, and run whole in
small."""

from pathlib import Path

import pytest
from tiny_run import ROOT, feldspar

from feldspar.config import Recipe, read_recipe
from feldspar.flow import run_recipe
from feldspar.plan import Plan
from feldspar.planning import plan_recipe
from feldspar.progress import SILENT
from feldspar.publish.directory import publish_run
from feldspar.reference_scores import COLUMNS, PUBLISHED_ROWS
from feldspar.runs import open_step

RECIPES = ROOT / "recipes"
CARDS = ("granite-7b-lab", "labradorite-13b", "merlinite-7b", "merlinite-7b-pt")
MODERN = ("modern-laptop", "modern-one-gpu", "modern-eight-gpus")
LEAF = """\
version: 2
created_by: somebody
task_description: Add two numbers.
seed_examples:
  - {question: What is 1 + 1?, answer: 1 + 1 = 2.}
  - {question: What is 2 + 1?, answer: 2 + 1 = 3.}
  - {question: What is 3 + 1?, answer: 3 + 1 = 4.}
  - {question: What is 4 + 1?, answer: 4 + 1 = 5.}
  - {question: What is 5 + 1?, answer: 5 + 1 = 6.}
"""


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    leaf = tmp_path / "taxonomy" / "compositional_skills" / "sums" / "qna.yaml"
    leaf.parent.mkdir(parents=True)
    leaf.write_text(LEAF)
    return tmp_path / "taxonomy"


def shipped(name: str, taxonomy: Path | None = None) -> Recipe:
    settings = [f"taxonomy.path={taxonomy}"] if taxonomy else []
    return read_recipe(RECIPES / f"{name}.toml", settings)


def planned(name: str, taxonomy: Path, gpu: str) -> Plan:
    return plan_recipe(shipped(name, taxonomy), RECIPES, SILENT, gpu=gpu)


def test_system_prompts_are_the_cards_letter_for_letter() -> None:
    guarded = (
        "You are a cautious assistant. You carefully follow instructions. You are helpful and "
        "harmless and you follow ethical guidelines and promote positive behavior."
    )
    ibm = f"You are an AI language model developed by IBM Research. {guarded}"
    labrador = (
        "You are Labrador, an AI language model developed by IBM DMF (Data Model Factory) "
        f"Alignment Team. {guarded}"
    )
    prompts = [shipped(name).student.system_prompt for name in CARDS]
    assert prompts == [ibm, labrador, ibm, ibm]


def test_hyper_parameters_are_the_papers() -> None:
    found = [
        (t.learning_rate, t.batch_samples, t.warmup_steps, *(p.num_epochs for p in t.phase))
        for t in (shipped(name).train for name in CARDS)
    ]
    labradorite, merlinite = (2e-5, 3840, 385, 5, 7, 7), (1e-6, 3840, 800, 4, 4, 7)
    assert found == [labradorite, labradorite, merlinite, merlinite]


@pytest.mark.parametrize("name", CARDS)
def test_the_published_row_is_the_one_that_the_recipe_tells_of(name: str) -> None:
    (model,) = shipped(name).publish.compare_with
    (row,) = [row for row in PUBLISHED_ROWS if row.model == model]
    assert model.casefold() == name
    text = (RECIPES / f"{name}.toml").read_text()
    told = text.partition("# Published, to set beside")[2].partition("[card]")[0]
    for score, column in zip(row.scores, COLUMNS, strict=True):
        assert not score or f"{column.title} {score.split()[0]}" in told


@pytest.mark.parametrize("name", CARDS)
def test_what_the_cards_report_is_measured_as_it_was(name: str) -> None:
    config = shipped(name).evaluate
    shots = {column.exam: column.settings for column in COLUMNS[1:]}
    assert [b.task for b in config.benchmark] == list(shots)
    for benchmark in config.benchmark:
        assert shots[benchmark.task].startswith(f"{benchmark.num_fewshot}-shot")
    assert config.mt_bench is not None
    assert {phase.select for phase in shipped(name).train.phase} == {"exams"}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("granite-7b-lab", 6.74),
        ("labradorite-13b", 13.02),
        ("merlinite-7b", 7.24),
        ("merlinite-7b-pt", 7.24),
        ("modern-laptop", 0.596),
        ("modern-one-gpu", 8.17),
        ("modern-eight-gpus", 12.25),
    ],
)
def test_recipes_plan_with_neither_base_nor_teacher_nor_gpu_at_hand(
    name: str, billions: float, taxonomy: Path
) -> None:
    plan = planned(name, taxonomy, "h200x8")
    assert plan.num_parameters / 1e9 == pytest.approx(billions, rel=0.002)
    assert plan.training_hours is not None
    assert plan.memory[0].total > 4 * plan.num_parameters
    assert sum(call.calls for call in plan.calls) > 0
    assert plan.disk_bytes > 16 * plan.num_parameters


@pytest.mark.slow
def test_the_papers_volumes_warn_of_a_warm_up_that_outlasts_its_phase(taxonomy: Path) -> None:
    done = feldspar(
        *("plan", "recipes/overlays/paper-volumes.toml", "--gpu", "h100x8"),
        *("--set", f"taxonomy.path={taxonomy}"),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    steps = [line.split() for line in done.stdout.splitlines() if "3,840" in line]
    assert [line[3] for line in steps] == ["165", "60", "144"]
    assert [line[5] for line in steps] == ["660", "240", "1,008"]
    told = " ".join(done.stdout.split())
    assert "knowledge-short ends at step 660, inside the warm-up of 800 steps" in told


def test_a_pair_too_large_for_the_gpu_is_told(taxonomy: Path) -> None:
    assert any("reward pair" in w for w in planned("merlinite-7b-pt", taxonomy, "h100x8").warnings)
    plan = planned("merlinite-7b-pt", taxonomy, "h200x8")
    assert not any("reward pair" in w for w in plan.warnings)


@pytest.fixture(scope="module")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One journal for all of them: the teacher is asked once."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS + MODERN)
def test_the_whole_recipe_runs_in_small(
    name: str, smoke_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(smoke_folder / "cache"))
    journal = smoke_folder / "journal.sqlite"
    recipe = read_recipe(RECIPES / "smoke" / f"{name}.toml", [f"journal={journal}"])
    run_path = smoke_folder / recipe.name
    scores = run_recipe(recipe, RECIPES / "smoke", run_path, SILENT)
    assert scores is not None
    last = recipe.train.phase[-1].name if recipe.prefer is None else "round-"
    assert any(score.checkpoint.startswith(last) for score in scores)

    plan = plan_recipe(recipe, RECIPES / "smoke", SILENT)
    trained = open_step(run_path, "trained")
    assert trained is not None
    num_steps = len((trained.folder / "metrics.jsonl").read_text().splitlines())
    # Some samples fall on the way, so a run may be shorter than its plan and never longer.
    assert 0 < num_steps <= sum(phase.num_steps for phase in plan.phases)
    [warning] = plan.warnings
    assert warning.startswith("the base is unprotected")

    published = smoke_folder / f"published-{name}"
    publish_run(run_path, published)
    card = (published / "README.md").read_text(encoding="utf-8")
    assert recipe.student.system_prompt in card
    assert all(phase.name in card for phase in recipe.train.phase)
    assert (run_path / "report.html").stat().st_size > 10_000
