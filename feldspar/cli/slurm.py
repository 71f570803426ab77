"""A command that submits itself as a Slurm job, and follows it to its end.

RUN/slurm/job.sh      what was submitted      RUN/slurm/ID.log    what the job says
RUN/slurm/job.json    the id of the job       RUN/slurm/ID.exit   the run's own exit code
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feldspar.errors import RunError
from feldspar.files import write_json, write_text_whole

if TYPE_CHECKING:
    from feldspar.config import SlurmConfig

JOB_VARIABLE = "SLURM_JOB_ID"
POLL_SECONDS = 5.0
_SAVE_SECONDS = 120
"""Before the end of the job's time."""


def is_within_job() -> bool:
    return JOB_VARIABLE in os.environ


def run_as_job(command: Sequence[str], config: SlurmConfig, with_ray: bool, run_path: Path) -> int:
    """Submit a command, or find the job that was submitted and has not ended, and follow it.

    What the job prints comes here, its standard output at the end. Gives its exit code. Raises
    RunError where Slurm does not take it.
    """
    if shutil.which("sbatch") is None:
        raise RunError(
            "the recipe has a [slurm] table, and there is no sbatch; run it where jobs are "
            "submitted, or leave the table out (--set slurm=none)"
        )
    folder = run_path.absolute() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    job, submitted = _job_of(folder)
    if not job or not _state(job):
        job = _submit(command, job_script(command, config, with_ray, folder), run_path.name, folder)
        _say(f"job {job} is submitted")
    elif submitted not in (None, list(command)):
        raise RunError(
            f"job {job} of this run has not ended, and was submitted as `{shlex.join(submitted)}`; "
            f"that command follows it, `scancel {job}` ends it"
        )
    else:
        _say(f"job {job} was submitted before and has not ended")
    try:
        _follow(job, folder)
    except KeyboardInterrupt:
        _say(f"job {job} goes on; the same command follows it again, `scancel {job}` ends it")
        return 130
    return _result(job, folder)


def job_script(command: Sequence[str], config: SlurmConfig, with_ray: bool, folder: Path) -> str:
    """The bash script of the job."""
    return "\n".join([*_head(config), *_body(command, config, with_ray, folder), ""])


def _head(config: SlurmConfig) -> Iterator[str]:
    yield "#!/bin/bash"
    yield f"#SBATCH --nodes={config.nodes}"
    yield "#SBATCH --ntasks-per-node=1"
    if config.gpus_per_node:
        yield f"#SBATCH --gpus-per-node={config.gpus_per_node}"
    yield f"#SBATCH --time={config.time}"
    yield f"#SBATCH --signal=B:TERM@{_SAVE_SECONDS}"
    if config.partition is not None:
        yield f"#SBATCH --partition={config.partition}"
    if config.account is not None:
        yield f"#SBATCH --account={config.account}"
    yield from (f"#SBATCH {option}" for option in config.options)


_RAY = """\
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" bash -c 'hostname -i; hostname -I' |
    tr ' ' '\\n' | awk '/^[0-9.]+$/ && !/^127\\./ && !n++')
[ "$address" ] || { echo "$head has no IPv4 address" >&2; exit 1; }
# Others' jobs may share the node.
port=$((20000 + SLURM_JOB_ID % 12000))
# --block: Ray's daemons end with the job's step.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \\
    ray start --head --block --node-ip-address="$address" --port="$port" &
ray=$!
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --ntasks-per-node=1 \\
        bash -c "until ray start --block --address=$address:$port; do sleep 5; done" &
fi
export RAY_ADDRESS="$address:$port"
until ray status >/dev/null 2>&1; do
    kill -0 "$ray" 2>/dev/null || { echo "Ray did not start on $head ($address)" >&2; exit 1; }
    sleep 2
done"""


def _body(
    command: Sequence[str], config: SlurmConfig, with_ray: bool, folder: Path
) -> Iterator[str]:
    if config.setup:
        yield config.setup
    if with_ray:
        yield _RAY
    job = f'{shlex.quote(f"{folder}/")}"${JOB_VARIABLE}"'
    out, code = f"{job}.out", f"{job}.exit"
    # In the background: bash then takes the signal at once, and hands it on.
    yield f"{shlex.join(command)} >{out} &"
    yield "run=$!"
    yield "told=1; trap 'told=1; kill -TERM \"$run\" 2>/dev/null' TERM"
    # A signal ends a wait and not the run; of a run that ended meanwhile bash still has the code.
    yield 'while ((told)); do told=0; wait "$run"; code=$?; done'
    yield f'echo "$code" >{code}'
    yield 'exit "$code"'


def _job_of(folder: Path) -> tuple[str, list[str] | None]:
    """The id of the job that was submitted last, and its command; "" where there is none."""
    path = folder / "job.json"
    if not path.exists():
        return "", None
    noted = json.loads(path.read_text(encoding="utf-8"))
    return str(noted["id"]), noted.get("command")


def _submit(command: Sequence[str], script: str, name: str, folder: Path) -> str:
    path = folder / "job.sh"
    write_text_whole(path, script)
    # Not in the script, where sbatch has rules of its own for quotes. `%j` is the job's id.
    log_path = str(folder).replace("%", "%%") + "/%j.log"
    told = subprocess.run(
        ["sbatch", "--parsable", f"--job-name={name}", f"--output={log_path}", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode:
        reason = " ".join(told.stderr.split()) or f"status {told.returncode}"
        raise RunError(f"sbatch does not take {path}: {reason}; mend [slurm]")
    # `123` or, with a cluster's name, `123;cluster`.
    job = told.stdout.strip().partition(";")[0]
    write_json(folder / "job.json", {"id": job, "command": list(command)})
    return job


def _state(job: str) -> str:
    """`PENDING`, `RUNNING`, ...; empty for a job that has ended. Waits while Slurm does not say: a
    controller that is busy for a moment has not ended the job."""
    said = ""
    while True:
        told = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}", "--format=%T"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode == 0:
            return told.stdout.strip()
        reason = " ".join(told.stderr.split()) or f"status {told.returncode}"
        if "invalid job id" in reason.lower():
            return ""
        if reason != said:
            _say(f"squeue does not tell of job {job} ({reason}); it is asked again")
        said = reason
        time.sleep(POLL_SECONDS)


def _follow(job: str, folder: Path) -> None:
    """Print what the job says until Slurm knows it no more."""
    log_path, num_read, told = folder / f"{job}.log", 0, ""
    while True:
        state = _state(job)
        if state and state != told and state != "RUNNING":
            _say(f"job {job}: {state.lower()}")
        told = state
        if log_path.exists():
            with log_path.open("rb") as stream:
                stream.seek(num_read)
                said = stream.read()
            num_read += len(said)
            sys.stderr.write(said.decode("utf-8", "replace"))
            sys.stderr.flush()
        if not state:
            return
        time.sleep(POLL_SECONDS)


def _result(job: str, folder: Path) -> int:
    out, code = folder / f"{job}.out", folder / f"{job}.exit"
    if out.exists():
        sys.stdout.write(out.read_text(encoding="utf-8"))
        sys.stdout.flush()
    if not code.exists():
        raise RunError(
            f"job {job} ended before its run did (its time, its memory or a node; see "
            f"{folder / f'{job}.log'}); the same command submits it again and goes on"
        )
    return int(code.read_text(encoding="utf-8"))


def _say(text: str) -> None:
    sys.stderr.write(f"feldspar: {text}\n")
    sys.stderr.flush()
