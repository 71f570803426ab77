"""The files of docs/cluster/ are read as their tools read them, as far as that needs no cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from feldspar.config import read_recipe

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"
PAGE = FOLDER.with_suffix(".md")


def test_bash_reads_the_script() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "ray-on-slurm.sh")], check=True)


def test_the_scripts_within_skypilots_file_are_bash() -> None:
    told = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    for name in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=told[name], text=True, check=True)
    assert told["num_nodes"] == 2


def test_every_pod_of_the_ray_job_sees_what_is_shared() -> None:
    told = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
    assert (told["apiVersion"], told["kind"]) == ("ray.io/v1", "RayJob")
    spec = told["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) == 2
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["image"].endswith(f":{spec['rayVersion']}")


def test_the_page_links_to_every_file() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"(cluster/{path.name})" in page for path in FOLDER.iterdir())


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_recipes_of_the_page_are_recipes(number: int, tmp_path: Path) -> None:
    parts = PAGE.read_text(encoding="utf-8").split("```toml\n")[1:]
    text = parts[number].split("```")[0]
    needed = '[taxonomy]\npath = "t"\n[student]\nbase = "b"\n'
    if "[prefer" in text:
        needed += '[prefer]\naligned = "a"\nbase = "b"\n'
    if "[cluster]" not in text:
        needed += '[cluster]\nengine = "ray"\n'
    if "[teacher]" in text and "model =" not in text:
        text = text.replace("[teacher]", '[teacher]\nmodel = "m"')
    (tmp_path / "recipe.toml").write_text(needed + text, encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml").cluster.engine == "ray"
