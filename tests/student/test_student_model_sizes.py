"""A base's sizes come from its config.json, and give the parameters that transformers counts."""

from pathlib import Path

import pytest
from safetensors import safe_open

from feldspar.config import WorldConfig
from feldspar.progress import SILENT
from feldspar.student.model_sizes import read_architecture
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
