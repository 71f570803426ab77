"""The command line: frozen, quick, and one clear line for what a user can mend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import from_a_shell

from feldspar.cli import main

COMMANDS = [
    "agree",
    "calibrate",
    "chat",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "export-data",
    "frontier",
    "gate",
    "generate",
    "init",
    "journal",
    "learn",
    "mix",
    "plan",
    "prefer",
    "preview",
    "publish",
    "quickstart",
    "report",
    "run",
    "serve",
    "studio",
    "taxonomy",
    "train",
    "verify",
    "world",
]
SMALL = '[taxonomy]\npath = "t"\n[student]\nbase = "b"\n'


def test_the_commands_are_these_and_no_others() -> None:
    from feldspar.cli import main

    main._add_commands()
    named = [c.name for c in main.app.registered_commands]
    named += [g.name for g in main.app.registered_groups]
    assert sorted(str(n) for n in named) == COMMANDS


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["taxonomy", "check", "--help"]]
)
def test_help_loads_neither_torch_nor_transformers(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['feldspar', *{arguments!r}]\n"
        "from feldspar.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'openai', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "says", "exit_code"),
    [
        (SMALL + "[train]\nlearning_rte = 1\n", "train.learning_rte: unknown key", 2),
        (SMALL + "[train]\nlearning_rate = -1\n", "greater than 0", 2),
        (SMALL, "t", 3),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    tmp_path: Path, recipe: str, says: str, exit_code: int
) -> None:
    (tmp_path / "recipe.toml").write_text(recipe)
    done = from_a_shell("run", "recipe.toml", cwd=tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("feldspar: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_server_for_others_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FELDSPAR_API_KEY", raising=False)
    done = from_a_shell("serve", "demo", "--host", "0.0.0.0", cwd=tmp_path)
    assert done.returncode == 6
    assert "set FELDSPAR_API_KEY" in done.stderr


@pytest.mark.slow
def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    done = from_a_shell("run", "none.toml", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert done.returncode != 0


@pytest.mark.slow
def test_init_writes_a_project_whose_taxonomy_passes_check(tmp_path: Path) -> None:
    done = from_a_shell("init", "my-model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = from_a_shell("taxonomy", "check", "my-model/taxonomy", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    again = from_a_shell("init", "my-model", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_nproc_under_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.toml").write_text(SMALL)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = from_a_shell("train", "recipe.toml", "--nproc", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "leave --nproc out" in done.stderr


@pytest.mark.parametrize(
    ("told", "load", "spins"),
    [
        # What ended before this command began keeps nobody waiting.
        ("9.00 1.00 1.00 1/80 11206\n", 9.0, "20000"),
        ("0.00 0.00 0.00 99/180 11206\n", 0.0, "2000"),
        (None, 0.0, "20000"),
        ("?", 100.0, "2000"),
    ],
)
def test_threads_wait_awake_longer_on_an_idle_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, load: float, spins: str
) -> None:
    monkeypatch.setattr(main, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    if told is not None:
        (tmp_path / "loadavg").write_text(told)
    assert main._waiting() == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": spins}
