"""A run that submits itself to Slurm, with a Slurm of two small scripts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tiny_run import from_a_shell

from feldspar.cli import slurm
from feldspar.config import Recipe, SlurmConfig
from feldspar.errors import RunError

FAKE = Path(__file__).with_name("fake_slurm")


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    monkeypatch.setenv("PATH", f"{FAKE}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.delenv(slurm.JOB_VARIABLE, raising=False)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.05)
    return jobs


def test_a_job_is_followed_to_its_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = "echo progress >&2; echo result of $SLURM_JOB_ID; exit 3"
    config = SlurmConfig(setup="echo prepared")
    assert slurm.run_as_job(["bash", "-c", script], config, False, tmp_path / "run") == 3
    said = capfd.readouterr()
    assert said.out == "result of 7\n"
    assert said.err.splitlines() == ["feldspar: job 7 is submitted", "prepared", "progress"]


def test_a_controller_that_does_not_answer_has_not_ended_the_job(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    cluster: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = tmp_path / "busy"
    busy.touch()
    monkeypatch.setenv("BUSY", str(busy))
    command = ["bash", "-c", "sleep 0.3; echo done"]
    assert slurm.run_as_job(command, SlurmConfig(), False, tmp_path / "run") == 0
    said = capfd.readouterr()
    assert "squeue does not tell of job 7 (slurm_load_jobs error: Socket timed out" in said.err
    assert said.out == "done\n"
    # Asked for again, it is still that job.
    assert len(list(cluster.iterdir())) == 1


def test_the_same_command_follows_a_job_that_has_not_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], cluster: Path
) -> None:
    go, run_path = tmp_path / "go", tmp_path / "run"
    command = ["bash", "-c", f"while [ ! -f {go} ]; do sleep 0.02; done; echo done"]

    def interrupt() -> None:
        while not (run_path / "slurm" / "job.json").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert slurm.run_as_job(command, SlurmConfig(), False, run_path) == 130
    assert "`scancel 7` ends it" in capfd.readouterr().err
    with pytest.raises(RunError, match=r"job 7 .* was submitted as `bash -c .*scancel 7` ends it"):
        slurm.run_as_job(["feldspar", "run", "other"], SlurmConfig(), False, run_path)
    go.touch()
    assert slurm.run_as_job(command, SlurmConfig(), False, run_path) == 0
    # Where the first had ended by then, a second one is submitted, and that is right too.
    assert "done" in capfd.readouterr().out


def test_a_job_that_dies_says_that_the_same_command_goes_on(tmp_path: Path, cluster: Path) -> None:
    def lose() -> None:
        while not (cluster / "7").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        os.killpg(int((cluster / "7").read_text()), signal.SIGKILL)

    threading.Thread(target=lose, daemon=True).start()
    with pytest.raises(RunError, match=r"job 7 ended before its run did .* and goes on"):
        slurm.run_as_job(["sleep", "60"], SlurmConfig(), False, tmp_path / "run")


@pytest.mark.parametrize("meanwhile", ["", 'kill() { command kill "$@"; sleep 0.5; }\n'])
def test_the_signal_before_the_end_reaches_the_run(tmp_path: Path, meanwhile: str) -> None:
    """Bash waits for the run to save its state, and tells the run's own exit code.

    Also where the run has ended by the time that bash looks again (its own wait says 143).
    """
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); "
    command = ["python3", "-S", "-c", code + "print('up', flush=True); time.sleep(60)"]
    folder = tmp_path / "slurm"
    folder.mkdir()
    path = tmp_path / "job.sh"
    path.write_text(meanwhile + slurm.job_script(command, SlurmConfig(), False, folder))
    job = subprocess.Popen(["bash", str(path)], env={**os.environ, "SLURM_JOB_ID": "1"})
    while not (folder / "1.out").exists() or not (folder / "1.out").read_text():
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 9
    assert (folder / "1.exit").read_text() == "9\n"


def test_a_run_may_have_any_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_path = tmp_path / "a b%j$HOME\"x'" / "run%%"
    command = ["bash", "-c", "echo out; echo said >&2; exit 4"]
    assert slurm.run_as_job(command, SlurmConfig(), False, run_path) == 4
    said = capfd.readouterr()
    assert said.out == "out\n"
    assert "said" in said.err.splitlines()


def test_ray_is_the_jobs_own_at_an_address_that_others_reach(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = tmp_path / "head"
    monkeypatch.setenv("RAY_HEAD", str(head))
    command = ["bash", "-c", "echo the run finds $RAY_ADDRESS"]
    assert slurm.run_as_job(command, SlurmConfig(), True, tmp_path / "run") == 0
    assert capfd.readouterr().out == "the run finds 10.0.0.7:20007\n"
    assert "--node-ip-address=10.0.0.7 --port=20007" in head.read_text()


def test_a_ray_that_does_not_start_ends_the_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_HEAD", str(tmp_path / "head"))
    monkeypatch.setenv("RAY_FAILS", "1")
    with pytest.raises(RunError, match="job 7 ended before its run did"):
        slurm.run_as_job(["true"], SlurmConfig(), True, tmp_path / "run")
    said = capfd.readouterr().err
    assert "its port is taken\nRay did not start on node-1 (10.0.0.7)" in said


def test_what_sbatch_does_not_take_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSE", "gpu")
    with pytest.raises(RunError, match=r"invalid partition specified: gpu; mend \[slurm\]"):
        slurm.run_as_job(["true"], SlurmConfig(partition="gpu"), False, tmp_path / "run")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RunError, match=r"--set slurm=none"):
        slurm.run_as_job(["true"], SlurmConfig(), False, tmp_path / "run")


def test_the_script_has_what_the_recipe_says_and_bash_reads_it(tmp_path: Path) -> None:
    config = SlurmConfig(
        nodes=10, partition="gpu", account="lab", time="1-00:00:00",
        options=("--cpus-per-task=64", "--exclusive"), setup="module load cuda",
    )  # fmt: skip
    text = slurm.job_script(["feldspar", "run", "my recipe.toml"], config, True, tmp_path)
    options = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert options == [
        "--nodes=10", "--ntasks-per-node=1", "--gpus-per-node=8", "--time=1-00:00:00",
        "--signal=B:TERM@120", "--partition=gpu", "--account=lab", "--cpus-per-task=64",
        "--exclusive",
    ]  # fmt: skip
    assert "ray start --head" in text
    assert "feldspar run 'my recipe.toml'" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "ray" not in slurm.job_script(["true"], SlurmConfig(), False, Path("/x"))


@pytest.mark.slow
def test_a_run_submits_itself_and_its_errors_come_back(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[slurm]\n[taxonomy]\npath = "gone"\n[student]\nbase = "gone"\n', encoding="utf-8"
    )
    done = from_a_shell("run", "recipe.toml", cwd=tmp_path)
    here = from_a_shell("run", "recipe.toml", "--set", "slurm=none", cwd=tmp_path)
    assert done.returncode == here.returncode != 0
    assert here.stderr.splitlines()[-1] in done.stderr
    assert "job 7 is submitted" in done.stderr


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"nodes": 2}, r'needs \[cluster\] engine = "ray"'),
        ({"options": ["cpus=3"]}, "written as --name=value"),
        ({"options": ["--x=1\necho"]}, "written as --name=value"),
        ({"partition": "a b"}, "one word"),
    ],
)
def test_what_makes_no_sense_is_said(table: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}, "slurm": table})
