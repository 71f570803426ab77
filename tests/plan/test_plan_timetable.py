"""Timetables of a cluster's GPUs: nothing is booked twice, and the work adds up."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feldspar.cli.plan import plan
from feldspar.config import ModelSizeConfig, read_recipe
from feldspar.errors import RecipeError
from feldspar.plan.cluster import Cluster, named_cluster
from feldspar.plan.cluster_plan import Copies, serving_flops
from feldspar.plan.machine import GPUS, named_machine
from feldspar.plan.timetable import START_HOURS, GpuJob, make_timetable
from feldspar.planning import plan_cluster
from feldspar.progress import SILENT

RECIPES = Path(__file__).parents[2] / "recipes"
CARDS = ("granite-7b-lab", "labradorite-13b", "merlinite-7b", "merlinite-7b-pt")


def cluster_of(per_node: int, nodes: int) -> Cluster:
    return Cluster(gpu=GPUS["h100"], gpus_per_node=per_node, num_nodes=nodes)


def jobs_for(cluster: Cluster) -> st.SearchStrategy[list[GpuJob]]:
    """Jobs that fit: within a node, over whole nodes, limited and not, several to a part."""
    job = st.builds(
        lambda part, role, hours, each, nodes, most: GpuJob(
            part=f"part {part}",
            role=f"role {role}",
            gpu_hours=hours,
            gpus_each=min(each, cluster.num_gpus),
            nodes_each=min(nodes, each, cluster.num_nodes),
            max_replicas=most,
        ),
        st.integers(0, 3),
        st.integers(0, 5),
        st.floats(0.01, 1e4),
        st.integers(1, 2 * cluster.gpus_per_node),
        st.integers(1, 2),
        st.none() | st.integers(1, 5),
    )
    return st.lists(job, min_size=1, max_size=8)


CLUSTERS = st.builds(cluster_of, st.integers(1, 9), st.integers(1, 6))


@settings(max_examples=40, deadline=None)
@given(CLUSTERS.flatmap(lambda c: st.tuples(st.just(c), jobs_for(c))))
def test_no_gpu_is_booked_twice(given: tuple[Cluster, list[GpuJob]]) -> None:
    cluster, jobs = given
    table = make_timetable(jobs, cluster)
    for one, other in combinations(table.bookings, 2):
        share = set(one.gpus) & set(other.gpus)
        assert not share or one.end <= other.start or other.end <= one.start, (one, other)
    for booking in table.bookings:
        assert booking.first_gpu >= 0
        assert booking.gpus[-1] < cluster.num_gpus
        nodes = {gpu // cluster.gpus_per_node for gpu in booking.gpus}
        # Within a node, or whole nodes.
        assert len(nodes) == 1 or booking.num_gpus == len(nodes) * cluster.gpus_per_node
        assert 0 <= booking.start < booking.end <= table.hours
    assert 0 <= table.idle_share < 1


@settings(max_examples=25, deadline=None)
@given(CLUSTERS.flatmap(lambda c: st.tuples(st.just(c), jobs_for(c))))
def test_all_work_is_done_and_parts_take_turns(given: tuple[Cluster, list[GpuJob]]) -> None:
    cluster, jobs = given
    table = make_timetable(jobs, cluster)
    assert len(table.turns) == len(jobs)
    worked = sum(
        (turn.end - turn.start - START_HOURS) * turn.num_replicas * turn.gpus_each
        for turn in table.turns
    )
    held = sum((booking.end - booking.start) * booking.num_gpus for booking in table.bookings)
    assert held == pytest.approx(sum(turn.gpu_hours for turn in table.turns))
    assert worked == pytest.approx(sum(job.gpu_hours for job in jobs))
    assert table.gpu_hours * (1 - table.idle_share) == pytest.approx(worked)
    parts = dict.fromkeys(job.part for job in jobs)
    spans = [
        (min(t.start for t in of), max(t.end for t in of))
        for of in ([t for t in table.turns if t.part == part] for part in parts)
    ]
    for (_, end), (start, _) in pairwise(spans):
        assert start == pytest.approx(end)


def test_two_servers_of_a_part_share_the_gpus_by_their_work() -> None:
    jobs = [
        GpuJob(part="generation", role="teacher", gpu_hours=30.0, gpus_each=2),
        GpuJob(part="generation", role="judge", gpu_hours=10.0),
    ]
    table = make_timetable(jobs, cluster_of(8, 1), start_hours=0.0)
    held = {turn.role: turn.num_replicas * turn.gpus_each for turn in table.turns}
    assert held == {"teacher": 6, "judge": 2}
    assert table.hours == pytest.approx(5.0)
    assert table.idle_share == pytest.approx(0.0)


@pytest.mark.parametrize(("of_a_node", "hours"), [(6, 5.0), (4, 7.5)])
def test_a_copy_over_nodes_holds_them_whole_and_computes_on_its_gpus(
    of_a_node: int, hours: float
) -> None:
    job = GpuJob(
        part="p", role="teacher", gpu_hours=120.0, gpus_each=2 * of_a_node, nodes_each=2
    )  # fmt: skip
    table = make_timetable([job], cluster_of(8, 4), start_hours=0.0)
    assert [booking.num_gpus for booking in table.bookings] == [16, 16]
    assert table.hours == pytest.approx(hours)
    assert table.turns[0].gpu_hours == pytest.approx(32 * hours)
    assert table.idle_share == pytest.approx(1 - of_a_node / 8)


def test_models_that_do_not_fit_together_take_turns() -> None:
    jobs = [GpuJob(part="read", role=role, gpu_hours=8.0, gpus_each=8) for role in "ab"]
    table = make_timetable(jobs, cluster_of(8, 1), start_hours=0.0)
    assert [(turn.start, turn.end) for turn in table.turns] == [(0.0, 1.0), (1.0, 2.0)]
    with pytest.raises(RecipeError, match="needs 16 GPUs, and the cluster has 8"):
        make_timetable([GpuJob(part="p", role="r", gpu_hours=1.0, gpus_each=9)], cluster_of(8, 1))


def test_a_cluster_is_named_by_gpu_and_two_counts() -> None:
    cluster = named_cluster("H100x8x10")
    assert (cluster.gpu.name, cluster.num_gpus, cluster.num_nodes) == ("h100", 80, 10)
    assert named_cluster("h100-pciex4x2").gpu.name == "h100-pcie"
    for wrong in ("h100x8", "h100", "tpux8x2", "h100x0x2"):
        with pytest.raises(RecipeError, match="GPU x GPUS PER NODE x NODES"):
            named_cluster(wrong)


@pytest.mark.parametrize(
    ("parameters", "gpus"), [(1e8, 1), (2.6e10, 1), (4.67e10, 2), (1e11, 4), (4e11, 16)]
)
def test_gpus_of_a_copy_follow_its_weights(parameters: float, gpus: int) -> None:
    # 79.2 GiB, of which 0.94 can be used and weights take at most 0.7.
    assert named_cluster("h100x8x10").gpus_for(parameters) == gpus


def test_tokens_times_operations_over_peak_by_hand() -> None:
    size = ModelSizeConfig(parameters=46.7e9, active_parameters=12.9e9)
    assert serving_flops(size, 1e6) == 2 * 12.9e9 * 1e6


@pytest.mark.parametrize("name", CARDS)
def test_the_published_recipes_have_a_timetable(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml", ["plan.price_per_gpu_hour=2"])
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x10"))
    table = made.cluster.timetable
    teacher = next(turn for turn in table.turns if turn.role == "teacher")
    # 47B in bf16 is 87 GiB: two GPUs.
    assert (teacher.part, teacher.gpus_each, teacher.num_replicas) == ("generation", 2, 40)
    calls = [call for call in made.plan.calls if call.step == "samples"]
    read, written = (
        sum(getattr(call, f"{kind}_tokens") for call in calls) for kind in ("prompt", "completion")
    )
    flops = 2 * 12.9e9 * (read / 0.3 + written / 0.1)
    assert teacher.gpu_hours == pytest.approx(flops / 989e12 / 3600 + 80 * START_HOURS)
    phases = [turn.part for turn in table.turns if turn.role == "training"][:3]
    assert phases == ["phase knowledge-short", "phase knowledge-long", "phase skills"]
    fastest, slowest = made.cluster.fastest.hours, made.cluster.slowest.hours
    assert fastest < table.hours < slowest < 2 * table.hours
    assert made.cluster.cost(table) == pytest.approx(2 * 80 * table.hours)
    has_pair = any(turn.role == "aligned" for turn in table.turns)
    assert has_pair == (name == "merlinite-7b-pt")


@pytest.mark.parametrize("of_a_node", [8, 6, 4])
def test_gpus_that_a_table_states_are_taken(of_a_node: int) -> None:
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["cluster.engine=ray"])
    served = recipe.teacher.model_copy(
        update={
            "endpoint": "embedded",
            "command": "c {port}",
            "gpus_each": of_a_node,
            "nodes_each": 2,
        }
    )
    recipe = recipe.model_copy(update={"teacher": served})
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x10")).cluster
    teacher = next(turn for turn in made.timetable.turns if turn.role == "teacher")
    assert (teacher.gpus_each, teacher.num_replicas) == (2 * of_a_node, 5)
    assert made.copies[0] == Copies(
        table="teacher", replicas=5, gpus_each=of_a_node, nodes_each=2
    )  # fmt: skip


def test_more_gpus_than_a_node_has_are_refused() -> None:
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["cluster.engine=ray"])
    wide = {"endpoint": "embedded", "command": "c {port}", "gpus_each": 12}
    recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=wide)})
    with pytest.raises(RecipeError, match="a node has 8; spread it by nodes_each"):
        plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x10"))


def test_copies_over_nodes_are_said_as_a_recipe_says_them() -> None:
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["plan.teacher={parameters=405e9}"])
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x4")).cluster
    assert made.copies[0] == Copies(table="teacher", replicas=2, gpus_each=8, nodes_each=2)


def test_a_served_reward_model_has_its_table() -> None:
    settings = ['prefer.reward="reward-model"', 'prefer.reward_model="m"']
    settings += ["prefer.aligned=none", "prefer.base=none"]
    recipe = read_recipe(RECIPES / "merlinite-7b-pt.toml", settings)
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x4")).cluster
    assert "prefer.reward_model_server" in {copies.table for copies in made.copies}


def test_what_was_measured_is_in_no_bracket() -> None:
    """The MFU's bracket is of what follows from operations."""
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["plan.teacher_tokens_per_second=2500"])
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x4")).cluster
    hours = [
        next(turn.gpu_hours for turn in table.turns if turn.role == "teacher")
        for table in (made.fastest, made.timetable, made.slowest)
    ]
    assert hours[0] == hours[1] == hours[2]


def test_a_teacher_of_unknown_size_is_said_to_be_left_out() -> None:
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["plan.teacher=none"])
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x1")).cluster
    assert not any(turn.role == "teacher" for turn in made.timetable.turns)
    assert any("[plan.teacher] states it" in part for part in made.not_included)


def test_a_priced_teacher_takes_no_gpus_and_costs_what_it_costs() -> None:
    recipe = read_recipe(RECIPES / "merlinite-7b.toml", ["teacher.completion_price=1.0"])
    made = plan_cluster(recipe, RECIPES, SILENT, named_cluster("h100x8x1"))
    assert not any(turn.role == "teacher" for turn in made.cluster.timetable.turns)
    assert made.cluster.cost(made.cluster.timetable) == pytest.approx(made.plan.cost)


def test_the_command_prints_it_for_people_and_for_programs() -> None:
    app = typer.Typer()
    app.command()(plan)
    given = [str(RECIPES / "merlinite-7b-pt.toml"), "--cluster", "h100x8x2"]
    shown = CliRunner().invoke(app, given)
    assert shown.exit_code == 0, shown.output
    assert "generation" in shown.output
    told = CliRunner().invoke(app, [*given, "--json"])
    found = json.loads(told.stdout)
    assert found["cluster"]["num_nodes"] == 2
    assert found["expected"]["hours"] < found["slowest"]["hours"]
    copies = {"table": "teacher", "replicas": 8, "gpus_each": 2, "nodes_each": 1}
    assert copies in found["copies"]
    both = CliRunner().invoke(app, [*given, "--gpu", "h100"])
    assert both.exit_code != 0


@pytest.mark.parametrize(
    "text", ["h100x8x" + "9" * 30, "h100x8x" + "9" * 5000, "h100x0x1", "h100x8"]
)
def test_a_cluster_of_no_size_that_can_be_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="both numbers below 10,000"):
        named_cluster(text)
    with pytest.raises(RecipeError, match="no GPU"):
        named_machine("h100x" + "9" * 5000)
