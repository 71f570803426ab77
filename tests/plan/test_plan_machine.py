"""Machines by name, and this one by its driver."""

from pathlib import Path

import pytest

from feldspar.errors import RecipeError
from feldspar.plan import machine_here, named_machine


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("h200x8", "h200", 8),
        ("rtx4090", "rtx4090", 1),
        ("RTX4090x2", "rtx4090", 2),
        ("l4", "l4", 1),
    ],
)
def test_a_machine_is_a_gpu_and_how_many(text: str, name: str, count: int) -> None:
    machine = named_machine(text)
    assert machine.gpu is not None
    assert (machine.gpu.name, machine.num_gpus) == (name, count)


@pytest.mark.parametrize("text", ["h900", "x8", "", "h200x0", "h200x"])
def test_an_unknown_name_is_told_with_those_there_are(text: str) -> None:
    with pytest.raises(RecipeError, match=r"a100, .* h200, .*with x8 for eight"):
        named_machine(text)


def driver(folder: Path, says: str, exit_code: int = 0) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {exit_code}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("told", "name", "peak"),
    [
        ("NVIDIA H200, 143771", "h200", 989.0),
        ("NVIDIA A100-SXM4-40GB, 40960", "a100-40gb", 312.0),
        ("NVIDIA A100-SXM4-80GB, 81920", "a100", 312.0),
        ("NVIDIA GeForce RTX 4090, 24564", "rtx4090", 165.2),
        ("NVIDIA L40S, 46068", "l40s", 362.0),
        ("NVIDIA RTX A4000, 16376", "NVIDIA RTX A4000", 0.0),
        ("NVIDIA GeForce RTX 4090 Laptop GPU, 16376", "NVIDIA GeForce RTX 4090 Laptop GPU", 0.0),
    ],
)
def test_this_machines_gpus_are_the_drivers(
    told: str, name: str, peak: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, f"{told}\n{told}\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = machine_here()
    assert machine.gpu is not None
    assert (machine.gpu.name, machine.gpu.peak_tflops, machine.num_gpus) == (name, peak, 2)
    assert machine.gpu.memory_bytes == int(told.split(", ")[1]) * 2**20
    assert machine.room_bytes is not None
    assert 0.9 * machine.gpu.memory_bytes < machine.room_bytes < machine.gpu.memory_bytes


def test_a_gpu_whose_memory_is_not_told_is_none_to_plan_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, "NVIDIA GB10, [N/A]\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine_here().gpu is None


def test_a_machine_whose_driver_fails_has_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, "No devices were found\n", exit_code=6)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = machine_here()
    assert machine.gpu is None
    assert machine.room_bytes is None
