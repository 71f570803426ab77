"""Several processes that share each step: the same curve, the same weights, and an end to all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ranked_fit
import torch
from forked import Forked
from ranked_fit import AT_ONCE, PAIRS, SINGLE, STEP_MEAN, train
from safetensors.torch import load_file
from tiny import save_base

from feldspar.config import LoraConfig
from feldspar.errors import TrainingError
from feldspar.student.training.schedule import micro_batches, share_out

SCRIPT = str(Path(__file__).parent / "ranked_fit.py")
NUM_STEPS = 16
PATIENCE_SECONDS = 240
"""For a machine whose cores are held by others; it is only waited out when a test fails."""


def metrics(here: Path) -> list[dict]:
    return [json.loads(text) for text in (here / "metrics.jsonl").read_text().splitlines()]


def weights(here: Path, step: int = NUM_STEPS) -> dict[str, torch.Tensor]:
    return load_file(here / f"step-{step}" / "model.safetensors")


def assert_same(here: Path, alone: Path) -> None:
    """The same losses to 1e-5, gradient norms alike, and the same weights to rounding."""
    lines, expected = metrics(here), metrics(alone)
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    for line, other in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert line["supervised_tokens"] == other["supervised_tokens"]
        for name, source in line["sources"].items():
            assert source["loss"] == pytest.approx(other["sources"][name]["loss"], rel=1e-5)
    for step in (4, NUM_STEPS):
        found, wanted = weights(here, step), weights(alone, step)
        for name, tensor in wanted.items():
            assert (found[name] - tensor).norm() / tensor.norm() < 1e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, and beside it the base that all start from."""
    here = tmp_path_factory.mktemp("ranks") / "alone"
    save_base(here.parent / "base")
    train(here, 1)
    return here


def started(here: Path, num: int) -> Forked:
    """Slowly."""
    return Forked(ranked_fit.main, here, num, True)


def followers(leader: Forked) -> list[int]:
    """Processes that the leader started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = stat.read_text().split(" ", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(rest.rsplit(") ", 1)[1].split()[1]) == leader.pid:
            found.append(int(number))
    return sorted(found)


def wait_for_steps(here: Path, num: int, leader: Forked) -> None:
    """Until a state and some steps are on disk."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and leader.poll() is None:
        if (here / "state.json").exists() and len(metrics(here)) >= num:
            return
        time.sleep(0.02)
    leader.kill()
    raise AssertionError(leader.communicate()[1])


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_rows_are_shared_by_cost_and_none_is_lost() -> None:
    rng = np.random.default_rng(1)
    for num_ranks in (1, 2, 3, 7):
        lengths = rng.lognormal(4, 1, 200).astype(np.int64) + 1
        rows = rng.permutation(1000)[:200]
        shares = share_out(rows, lengths, num_ranks, 400.0)
        assert sorted(np.concatenate(shares).tolist()) == sorted(rows.tolist())
        cost = dict(zip(rows.tolist(), (lengths + lengths**2 / 400).tolist(), strict=True))
        loads = [sum(cost[row] for row in share.tolist()) for share in shares]
        # LPT: no load is above the mean by more than the costliest row.
        assert max(loads) <= np.mean(loads) + max(cost.values())
        again = share_out(rows, lengths, num_ranks, 400.0)
        assert all(np.array_equal(a, b) for a, b in zip(shares, again, strict=True))


def test_one_long_row_is_as_much_as_many_short_ones() -> None:
    rows, lengths = np.arange(41), np.array([2000, *[50] * 40])
    long, short = share_out(rows, lengths, 2, 1e9)
    assert long.tolist() == [0]
    assert len(short) == 40
    assert len(micro_batches(long, lengths[long], 100)) == 1
    assert len(micro_batches(short, lengths[short], 100)) == 20
    assert [len(s) for s in share_out(rows[:1], lengths[:1], 3, 1e9)] == [1, 0, 0]


@pytest.mark.slow
def test_processes_train_as_one_layer_by_layer(alone: Path) -> None:
    """An odd number, which shares neither rows nor weights evenly. By the step: under torchrun."""
    here = alone.parent / "layers"
    train(here, 3, shard="layer", activation_checkpointing="always")
    assert_same(here, alone)
    assert not (here / "ranks").exists()


def python_path() -> dict[str, str]:
    """Where processes find the modules of these tests."""
    folder = Path(__file__).parent
    places = [str(folder), str(folder.parent), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, places))}


@pytest.fixture(scope="module")
def torchrun(alone: Path) -> Path:
    """Where two processes that torchrun started have trained, several times."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", SCRIPT, str(alone.parent)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | python_path())
    return alone.parent


@pytest.mark.slow
def test_torchrun_starts_them_too(torchrun: Path, alone: Path) -> None:
    assert_same(torchrun / "torchrun", alone)


def gradient(here: Path) -> torch.Tensor:
    """Of the one step so far, in the parts of all processes: the first moment is a share of it."""
    parts = [load_file(path) for path in sorted(here.glob("state*.safetensors"))]
    names = sorted(name for name in parts[0] if name.startswith("exp_avg."))
    return torch.cat([part[name].flatten() for name in names for part in parts])


@pytest.mark.slow
def test_neither_processes_nor_the_order_of_packing_change_the_gradient(
    torchrun: Path, alone: Path
) -> None:
    """All rows in one step: two processes pack them the other way round, and more at once."""
    one, two = alone.parent / "in-order", torchrun / "turned"
    train(one, 1, **AT_ONCE)
    expected, found = gradient(one), gradient(two)
    assert len(list(two.glob("state-*"))) == 2
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert metrics(two)[0]["loss"] == pytest.approx(metrics(one)[0]["loss"], rel=1e-5)
    assert metrics(two)[0]["grad_norm"] == pytest.approx(metrics(one)[0]["grad_norm"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["step", "layer"])
def test_in_low_precision_many_micro_batches_add_up_as_in_one_process(
    shard: str, torchrun: Path, alone: Path
) -> None:
    """Below one rounding of bfloat16 (3.9e-3): what rows share has its gradient summed in each
    micro-batch, so rows that are cut otherwise are rounded otherwise."""
    one, two = alone.parent / f"low-1-{shard}", torchrun / f"low by {shard}"
    train(one, 1, **AT_ONCE, dtype="bfloat16")
    expected, found = gradient(one), gradient(two)
    assert (found - expected).norm() / expected.norm() < 3e-3


@pytest.mark.slow
def test_compiled_layers_that_lie_in_parts_train_as_they_are(torchrun: Path, alone: Path) -> None:
    assert_same(torchrun / "compiled", alone)
    plain, compiled = (weights(torchrun / name) for name in ("torchrun", "compiled"))
    assert any(not torch.equal(plain[name], compiled[name]) for name in plain)


@pytest.mark.slow
def test_low_rank_weights_are_trained_by_several_as_by_one(torchrun: Path, alone: Path) -> None:
    pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")
    one, two = alone.parent / "low rank, alone", torchrun / "low rank"
    train(one, 1, lora=LoraConfig(rank=4))
    assert_same(two, one)
    before, after = load_file(alone.parent / "base" / "model.safetensors"), weights(two)
    moved = {
        name
        for name, tensor in before.items()
        if not torch.equal(after[name][: len(tensor)], tensor)
    }
    assert moved == {name for name in before if "proj" in name}
    assert metrics(two)[-1]["loss"] < 0.5 * metrics(two)[0]["loss"]


def assert_alike(here: Path, alone: Path, *names: str) -> None:
    """The same losses and named metrics, step by step, and in the end the same weights."""
    lines, expected = metrics(here), metrics(alone)
    assert len(lines) == len(expected)
    for line, other in zip(lines, expected, strict=True):
        for name in ("loss", *names):
            assert line[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5)
    (last, *_) = sorted(alone.glob("step-*"), key=lambda path: -int(path.name[5:]))
    for name, tensor in load_file(last / "model.safetensors").items():
        found = load_file(here / last.name / "model.safetensors")[name]
        assert (found - tensor).norm() / tensor.norm() < 1e-5


@pytest.mark.slow
def test_preference_pairs_are_trained_by_several_as_by_one(torchrun: Path, alone: Path) -> None:
    """Under torchrun by the step, and with two processes that this one starts by the layer."""
    one, two = alone.parent / "pairs, alone", alone.parent / "pairs by layer"
    train(one, 1, **PAIRS)
    train(two, 2, **PAIRS, shard="layer")
    for here in (two, torchrun / "pairs by step"):
        assert_alike(here, one, "margin", "accuracy")
        found, expected = (
            np.array(json.loads((folder / "reference.json").read_text())["log_probs"])
            for folder in (here, one)
        )
        assert np.abs(found - expected).max() < 1e-3
    first, *_, last = metrics(one)
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert abs(last["margin"]) > 1e-2
    assert 0 <= last["accuracy"] <= 1


@pytest.mark.slow
def test_the_mean_of_a_step_is_that_of_all_processes(
    torchrun: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An objective is found by its module, in the workers too.
    for name, places in python_path().items():
        monkeypatch.setenv(name, places)
    one, two = alone.parent / "step mean, alone", alone.parent / "step mean by step"
    train(one, 1, **STEP_MEAN)
    train(two, 2, **STEP_MEAN, shard="step")
    for here in (two, torchrun / "step mean"):
        assert_alike(here, one, "mean")


@pytest.mark.slow
def test_more_processes_than_rows_of_a_step(torchrun: Path, alone: Path) -> None:
    """One row a step: one of two processes has nothing to compute. Moments in bfloat16."""
    one, two = alone.parent / "single-1", torchrun / "single-2"
    train(one, 1, **SINGLE)
    for line, other in zip(metrics(two), metrics(one), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.slow
def test_the_others_stop_when_one_is_killed_and_one_process_goes_on(alone: Path) -> None:
    here = alone.parent / "killed"
    leader = started(here, 3)
    wait_for_steps(here, 6, leader)
    children = followers(leader)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    since = time.monotonic()
    _, told = leader.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - since < 15
    assert leader.returncode == TrainingError.exit_code
    assert "process 3 of 3 was killed by SIGKILL; the same command goes on" in told
    assert not any(map(is_alive, children))
    done = len(metrics(here))
    train(here, 1)
    assert_same(here, alone)
    assert 6 <= done < NUM_STEPS


@pytest.mark.slow
def test_the_others_end_with_the_first(alone: Path) -> None:
    here = alone.parent / "orphaned"
    leader = started(here, 2)
    wait_for_steps(here, 2, leader)
    children = followers(leader)
    leader.kill()
    leader.communicate()
    deadline = time.monotonic() + 15
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, children))


@pytest.mark.slow
def test_a_signal_saves_one_state_of_all_and_any_number_goes_on(alone: Path) -> None:
    """From one process to two, stopped by either signal, and back to one."""
    here = alone.parent / "stopped"
    with pytest.raises(InterruptedError):
        train(here, 1, stop_at=4)
    assert (here / "state.safetensors").exists()
    leader = started(here, 2)
    wait_for_steps(here, 6, leader)
    # As a terminal sends it: to all of them.
    os.killpg(leader.pid, signal.SIGINT)
    stopped_at = assert_saved_once(here, leader)
    assert not (here / "state.safetensors").exists()
    leader = started(here, 2)
    wait_for_steps(here, stopped_at + 2, leader)
    leader.terminate()
    assert stopped_at < assert_saved_once(here, leader) < NUM_STEPS
    train(here, 1)
    assert_same(here, alone)


def assert_saved_once(here: Path, leader: Forked) -> int:
    """The command ended as interrupted, with one whole state of its last step: gives the step."""
    _, told = leader.communicate(timeout=PATIENCE_SECONDS)
    assert leader.returncode == 130, told
    state = json.loads((here / "state.json").read_text())
    assert state["step"] == len(metrics(here))
    assert sorted(p.name for p in here.glob("state-*")) == state["parts"]
    return int(state["step"])


@pytest.mark.slow
def test_all_stop_at_a_loss_that_is_no_number(alone: Path) -> None:
    here = alone.parent / "nonsense"
    with pytest.raises(TrainingError, match=r"loss is (nan|inf).*model the phase started from"):
        train(here, 2, learning_rate=1e38, warmup_steps=1, earlier_steps=0)


@pytest.mark.slow
def test_a_process_that_cannot_take_part_says_why(alone: Path) -> None:
    here = alone.parent / "faulty"
    here.mkdir()
    with pytest.raises(TrainingError, match=r"process 2 of 2 stopped: .*no such model"):
        train(here, 2, start="gone")
