"""What `student.dtype = "auto"` means: by device, size and machine, once for a run."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from tiny import make_tiny, save_base

from feldspar.config import EvaluateConfig, Recipe, StudentConfig, TaxonomyConfig
from feldspar.errors import RunError
from feldspar.prepare import look_ahead
from feldspar.student.precision import (
    LEAST_PARAMETERS,
    PRECISION_FILE,
    ModelSize,
    Precision,
    Probe,
    bfloat16_speedup,
    find_precision,
    note_precision,
    noted_config,
    run_precision,
    size_of_base,
    size_of_model,
)

AUTO = StudentConfig(base="", device="cpu")
LARGE = ModelSize(LEAST_PARAMETERS, 576, 1536)


def large_base(folder: Path) -> StudentConfig:
    """A base of as many parameters as are probed for, most of them a hole in a file."""
    folder.mkdir(parents=True)
    about = {"hidden_size": 576, "intermediate_size": 1536, "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(about))
    num_bytes = 2 * LEAST_PARAMETERS
    tensor = {"dtype": "BF16", "shape": [LEAST_PARAMETERS], "data_offsets": [0, num_bytes]}
    header = json.dumps({"weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + num_bytes)
    return StudentConfig(base=str(folder), device="cpu")


def machine_of(speedup: float) -> Probe:
    return lambda hidden_size, intermediate_size: speedup


def never_asked(hidden_size: int, intermediate_size: int) -> float:
    raise AssertionError("this machine was probed again")


@pytest.mark.parametrize(
    ("speedup", "dtype"), [(4.2, "bfloat16"), (1.5, "bfloat16"), (1.4, "float32")]
)
def test_a_large_model_on_a_cpu_is_computed_as_a_probe_says(speedup: float, dtype: str) -> None:
    found = find_precision(AUTO, "cpu", LARGE, machine_of(speedup))
    assert found.dtype == dtype
    assert str(found) == f"{dtype} (bfloat16 products at {speedup} times float32 on this machine)"


def test_no_machine_is_probed_for_small_models_other_devices_and_recipes_that_say_it() -> None:
    small = LARGE._replace(num_parameters=LEAST_PARAMETERS - 1)
    asked = [
        find_precision(AUTO, "cpu", small, never_asked),
        find_precision(AUTO, "cpu", None, never_asked),
        find_precision(AUTO, "mps", LARGE, never_asked),
        find_precision(AUTO, "cuda", small, never_asked),
        find_precision(StudentConfig(base="", dtype="float32"), "cpu", LARGE, never_asked),
    ]
    assert [found.dtype for found in asked] == ["float32"] * 3 + ["bfloat16", "float32"]


@pytest.mark.parametrize("speedup", [5.0, 1.0])
def test_a_run_goes_on_in_the_precision_it_began_with(tmp_path: Path, speedup: float) -> None:
    student = large_base(tmp_path / "project" / "base")
    run = tmp_path / "project" / "run"
    run.mkdir()
    assert noted_config(student, run) == student
    begun = run_precision(student, "cpu", run, machine_of(speedup))
    note_precision(student.base, begun, run)
    assert run_precision(student, "cpu", run, never_asked) == begun
    # On another machine too, with a GPU even, and in another place.
    moved = shutil.move(tmp_path / "project", tmp_path / "moved")
    student = student.model_copy(update={"base": f"{moved}/base"})
    assert run_precision(student, "cuda", moved / "run", never_asked) == begun
    assert noted_config(student, moved / "run").dtype == begun.dtype
    # The recipe still has the last word.
    said = student.model_copy(update={"dtype": "float32"})
    assert run_precision(said, "cpu", moved / "run", never_asked).dtype == "float32"


def test_what_a_run_noted_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    student = large_base(tmp_path / "base")
    for _ in range(2):
        note_precision(student.base, Precision("bfloat16", "4.2 times"), tmp_path)
    assert caplog.messages == ['student.dtype = "auto": bfloat16 (4.2 times), which this run keeps']


def test_a_damaged_note_is_an_error_and_not_another_precision(tmp_path: Path) -> None:
    student = large_base(tmp_path / "base")
    (tmp_path / PRECISION_FILE).write_text("{")
    with pytest.raises(RunError, match=f"{PRECISION_FILE}: damaged"):
        run_precision(student, "cpu", tmp_path, never_asked)


def test_what_a_run_computes_with_is_what_it_noted(tmp_path: Path) -> None:
    base = str(save_base(tmp_path / "base"))
    student = StudentConfig(base=base, device="cpu", template="lab")
    recipe = Recipe(student=student, taxonomy=TaxonomyConfig(path="t"), evaluate=EvaluateConfig())
    assert look_ahead(recipe, "scores", tmp_path).student.dtype == "float32"
    note_precision(student.base, Precision("bfloat16", "noted"), tmp_path)
    assert look_ahead(recipe, "scores", tmp_path).student.dtype == "bfloat16"


def test_a_model_and_its_files_have_one_size(tmp_path: Path) -> None:
    model = make_tiny(template="lab").model
    model.save_pretrained(tmp_path)
    assert size_of_base(str(tmp_path)) == size_of_model(model)
    assert size_of_base(str(tmp_path / "none")) is None


def test_the_probe_answers_within_two_seconds_and_leaves_threads_as_they_are() -> None:
    before, started = torch.get_num_threads(), time.monotonic()
    assert bfloat16_speedup(64, 128) > 0
    assert torch.get_num_threads() == before
    assert time.monotonic() - started < 2
