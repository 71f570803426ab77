"""Answers drawn by a server that is started for each policy: a small one, and `feldspar serve`."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_models import prompt

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.errors import TrainingError
from feldspar.keys import content_key
from feldspar.models.fleet import launching
from feldspar.models.server import Start
from feldspar.prefer import candidates
from feldspar.prefer.candidates import RoundContext, draw_candidates
from feldspar.prefer.reward import find_pair, log_ratio
from feldspar.progress import SILENT
from feldspar.records import Candidate
from feldspar.runs import read_rows
from feldspar.student.model import base_checkpoint

STUDENT = StudentConfig(base="tiny", template="own")
SERVER = Path(__file__).parent / "toy_server.py"
NUM_PROMPTS = 6


def command(*options):
    return shlex.join([sys.executable, str(SERVER), "{model}", "{port}", *map(str, options)])


def config_of(toy, start, num_answers=3, **changes):
    server = {"command": start, "concurrency": 1, "max_retries": 2, **changes}
    return PreferConfig(
        aligned=toy["aligned"], base=toy["base"], num_answers=num_answers, max_new_tokens=12,
        policy_server=server,
    )  # fmt: skip


def draw(toy, folder, config):
    """What the candidates of one round are."""
    context = RoundContext(
        config=config, student=STUDENT, train=TrainConfig(), pair=find_pair(config), seed=1,
        reward=lambda a, b: log_ratio(a, b, "sum"), score=None, progress=SILENT,
    )  # fmt: skip
    prompts = [prompt(n) for n in range(NUM_PROMPTS)]
    policy = base_checkpoint(toy["policy"])
    path = draw_candidates(policy, prompts, config.num_answers, folder, context)
    return list(read_rows(path, Candidate))


def asked_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(is_so, seconds=20.0):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(candidates, "PROMPTS_PER_SHARD", 4)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A round that nothing happened to: its candidates, and what the server was asked."""
    here = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "PROMPTS_PER_SHARD", 4)
        found = draw(toy, here / "round-1", config_of(toy, command("--asked", here / "asked")))
    return here / "round-1", found, asked_of(here / "asked")


def test_each_prompt_is_one_request_for_all_its_answers(toy, whole):
    _, found, asked = whole
    assert [(c.prompt, c.draw) for c in found] == [
        (f"p{n}", draw) for n in range(NUM_PROMPTS) for draw in range(3)
    ]
    assert [body["n"] for body in asked] == [3] * NUM_PROMPTS
    assert len({body["seed"] for body in asked}) == NUM_PROMPTS
    assert {(b["temperature"], b["top_p"], b["max_tokens"]) for b in asked} == {(1.0, 1.0, 12)}
    assert {body["model"] for body in asked} == {toy["policy"]}


def test_why_an_answer_ended_is_kept(whole):
    _, found, _ = whole
    assert {c.text for c in found} == {"It is", "It is lovely.", "It is dreadful."}
    assert all(c.ended == c.text.endswith(".") for c in found)
    cut, good = (next(c for c in found if c.text == t) for t in ("It is", "It is lovely."))
    assert 0 < cut.num_tokens < good.num_tokens


def test_a_round_that_is_done_starts_no_server(toy, whole):
    folder, found, _ = whole
    assert draw(toy, folder, config_of(toy, "nothing-of-the-kind {model} {port}")) == found
    assert not list(folder.glob("drawn/*.jsonl"))


@pytest.mark.slow
def test_a_server_that_dies_is_told_of_and_the_round_goes_on(toy, whole, tmp_path):
    folder, asked = tmp_path / "round-1", tmp_path / "asked"
    dies = config_of(toy, command("--asked", asked, "--dies-at", 3))
    with pytest.raises(TrainingError) as told:
        draw(toy, folder, dies)
    assert "ended before it had answered all (status 3)" in str(told.value)
    assert "out of memory | all is lost" in str(told.value)
    assert "mend prefer.policy_server, then run again" in str(told.value)
    assert "\n" not in str(told.value)
    # A line that the death cut off.
    with (folder / "drawn" / "00000.answers.jsonl").open("a") as file:
        file.write('{"key": "round-1/p2", "cho')
    assert draw(toy, folder, config_of(toy, command("--asked", asked))) == whole[1]
    assert (folder / "candidates.jsonl.zst").read_bytes() == (
        whole[0] / "candidates.jsonl.zst"
    ).read_bytes()
    assert len(asked_of(asked)) == NUM_PROMPTS + 1  # the third was never answered


def test_a_server_that_gives_fewer_answers_is_asked_for_the_rest(toy, tmp_path):
    start = command("--asked", tmp_path / "asked", "--most", 2, "--called", "policy")
    found = draw(toy, tmp_path / "round-1", config_of(toy, start, num_answers=5))
    assert len(found) == 5 * NUM_PROMPTS
    asked = asked_of(tmp_path / "asked")
    assert [body["n"] for body in asked] == [5, 3, 1] * NUM_PROMPTS
    assert len({body["seed"] for body in asked}) == 3 * NUM_PROMPTS
    assert {body["model"] for body in asked} == {"policy"}  # known by its root


@pytest.mark.parametrize(
    ("start", "changes", "said"),
    [
        ("no-such-program {model} {port}", {}, r"did not come up \(status 127\); its last words: "),
        (
            f"{sys.executable} -c \"raise SystemExit('no room on the device')\" {{model}} {{port}}",
            {}, r"\(status 1\); its last words: no room on the device; all of them: .*server.log",
        ),
        (
            f"{sys.executable} -c 'import time; time.sleep(60)' {{model}} {{port}}",
            {"start_seconds": 0.3}, r"did not come up in 0.3 s \(",
        ),
        (command("--status", 422), {}, r"refuses 3 answers of 12 tokens .*no more than 3.*; lower"),
        (command("--status", 500), {"max_retries": 1}, r"does not answer \(500 no more than 3\)"),
        (command(), {"model": "policy-7"}, r"and not policy-7, so another model would answer"),
    ],
)  # fmt: skip
def test_a_server_of_no_use_is_told_of_in_one_line(toy, tmp_path, start, changes, said):
    with pytest.raises(TrainingError, match=said) as told:
        draw(toy, tmp_path / "round-1", config_of(toy, start, **changes))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"command": "vllm serve {model}"}, "has no {port}"),
        ({"command": "vllm serve --port {port}"}, "has no {model}: each round's model"),
        ({"command": "vllm serve {model} --port '{port}"}, "cannot be read"),
        ({"endpoint": "http://localhost:1/v1"}, "needs a `command`: each round's model"),
        ({"folder": "m"}, "leave the table out and it is computed locally"),
        ({"command": "x {model} {port}", "protocol": "anthropic"}, "asked by token ids"),
    ],
)
def test_a_policy_server_that_cannot_follow_the_rounds_is_refused(server, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        PreferConfig(aligned="a", base="b", policy_server=server)


def test_how_a_server_is_started_is_no_part_of_the_result(toy):
    one, other = (
        config_of(toy, f"{c} {{model}} {{port}}", replicas=n) for c, n in (("a", 1), ("b", 3))
    )
    assert content_key(one) == content_key(other)


@pytest.mark.slow
def test_replicas_draw_what_one_server_draws(toy, tmp_path):
    one = draw(toy, tmp_path / "one" / "round-1", config_of(toy, command()))
    asked = command("--asked", tmp_path / "asked-{replica}")
    config = config_of(toy, asked, replicas=2, concurrency=4)
    assert draw(toy, tmp_path / "two" / "round-1", config) == one
    shares = [len(asked_of(tmp_path / f"asked-{number}")) for number in (0, 1)]
    assert sum(shares) == NUM_PROMPTS
    assert all(shares)


@pytest.mark.slow
def test_a_server_ends_with_the_block_and_so_do_its_children(tmp_path):
    start = Start(
        command=command("--child", tmp_path / "pids"), model="folder", log_folder=tmp_path
    )
    with launching(start):
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


STARTER = """
import sys, time
from pathlib import Path
from feldspar.models.fleet import launching
from feldspar.models.server import Start
with launching(Start(command=sys.argv[1], model="folder", log_folder=Path(sys.argv[2]))):
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_server_does_not_outlive_a_run_that_was_killed(tmp_path):
    pids_path = tmp_path / "pids"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, command("--child", pids_path), str(tmp_path / "log")]
    )
    wait_until(lambda: pids_path.exists() and pids_path.read_text(), seconds=60)
    pids = [int(pid) for pid in pids_path.read_text().split()]
    assert all(map(is_running, pids))
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.slow
def test_feldspar_serve_draws_a_round(toy, tmp_path, monkeypatch):
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    serve = f"{sys.executable} -P -m feldspar.cli.main serve {{model}} --port {{port}}"
    found = draw(toy, tmp_path / "round-1", config_of(toy, serve, concurrency=4))
    assert len(found) == 3 * NUM_PROMPTS
    # The policy says these two things alike.
    said = [c.text for c in found if c.ended]
    assert {"It is lovely.", "It is dreadful."} <= set(said)
    assert "serves " + toy["policy"] in (tmp_path / "round-1" / "server.log").read_text()
