"""A base's sizes come from its config.json, and give the parameters that transformers counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from feldspar.config import WorldConfig
from feldspar.progress import SILENT
from feldspar.student.model_sizes import num_weights, read_architecture
from feldspar.world import make_world

FAMILIES = ("tiny-llama", "tiny-mistral", "tiny-granite", "tiny-qwen3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config = WorldConfig(num_old=12, num_new=10)
    parts = {*FAMILIES, "tiny-mixtral"}
    return make_world(config, tmp_path_factory.mktemp("cache"), parts, SILENT)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str, made: dict[str, str]) -> None:
    sizes = read_architecture(made[family])
    assert sizes is not None
    num_held = 0
    with safe_open(Path(made[family]) / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            num_held += tensors.get_tensor(name).numel()
    # Norms within heads are left out of the count.
    assert sizes.num_parameters == pytest.approx(num_held, abs=2 * 2 * 32)


def test_what_cannot_be_counted_is_unknown(made: dict[str, str], tmp_path: Path) -> None:
    assert read_architecture(made["tiny-mixtral"]) is None
    assert read_architecture(str(tmp_path)) is None
    assert read_architecture("nobody/nothing-of-this-name") is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_architecture(str(tmp_path)) is None


def test_weights_in_another_form_beside_a_models_own_are_not_counted(tmp_path: Path) -> None:
    for name in ("model-1", "model-2", "consolidated", "adapter_model"):
        save_file({name: np.zeros((2, 5), np.float32)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert num_weights(tmp_path) == 20
    save_file({"all": np.zeros(7, np.float32)}, tmp_path / "model.safetensors")
    assert num_weights(tmp_path) == 7
