"""Rewards over HTTP: `feldspar serve`'s own layer, and a small server that speaks as vLLM does."""

import contextlib
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from aiohttp import web
from in_threads import in_a_thread
from toy_models import prompt, save_foreign_model

from feldspar.children import module_command
from feldspar.config import (
    PreferConfig,
    ServeConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
)
from feldspar.errors import TeacherError, TrainingError
from feldspar.prefer.agree import agree
from feldspar.prefer.candidates import RoundContext, draw_candidates
from feldspar.prefer.pairs import StoredPair
from feldspar.prefer.reward import (
    close_scorer,
    find_pair,
    load_scorer,
    log_ratio,
    open_scorer,
    score_answers,
)
from feldspar.progress import SILENT
from feldspar.records import Candidate, Message
from feldspar.runs import read_rows
from feldspar.serve import ModelCard, listening, make_app
from feldspar.serve.hosted_model import open_engine
from feldspar.student.inference.engine import prompt_log_probs
from feldspar.student.model import base_checkpoint, load_student
from feldspar.student.scoring.log_probs import AnswerRow

STUDENT = StudentConfig(base="tiny")
QUESTIONS = [(Message(role="user", content=f"How is the stone number {n}?"),) for n in range(3)]
ROWS = [
    AnswerRow(messages, answer, ended)
    for messages in QUESTIONS
    for answer, ended in (("It is lovely.", True), (" It is", False), ("", True), ("", False))
]


def our_server(path, key=None, **config):
    @contextlib.asynccontextmanager
    async def serving():
        async with open_engine(load_student(path, STUDENT), ServeConfig(**config)) as engine:
            app = make_app([ModelCard("toy")], draw=engine.draw, key=key)
            async with listening(app) as url:
                yield url

    return in_a_thread(serving)


class Other:
    """A server that tells `prompt_logprobs` by token id and ignores what it does not know."""

    def __init__(self, path, *, tells=True, max_model_len=256):
        self.student = load_student(path, STUDENT)
        self.tells, self.max_model_len = tells, max_model_len
        self.faults = []
        """Statuses that the next completions are answered with."""
        self.num_asked = 0
        self.most = 1 << 30
        """Calls after which it fails."""

    async def models(self, _):
        card = {"id": "toy", "object": "model", "created": 0, "owned_by": "x"}
        return web.json_response(
            {"object": "list", "data": [{**card, "max_model_len": self.max_model_len}]}
        )

    async def complete(self, http):
        body = await http.json()
        self.num_asked += 1
        if self.num_asked > self.most:
            self.faults.append(500)
        if self.faults:
            return web.json_response({"error": {"message": "no"}}, status=self.faults.pop(0))
        ids = body["prompt"]
        choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None}
        if self.tells and "prompt_logprobs" in body:
            with torch.inference_mode():
                found = prompt_log_probs(self.student, ids, 1)
            choice["prompt_logprobs"] = [None, *map(self._entry, found)]
        return web.json_response({"id": "x", "object": "text_completion", "choices": [choice]})

    def _entry(self, found):
        rows = {**dict(found.likeliest), found.token: found.log_prob}
        decode = self.student.tokenizer.decode
        return {
            str(token): {"logprob": value, "rank": 1, "decoded_token": decode([token])}
            for token, value in rows.items()
        }

    @contextlib.asynccontextmanager
    async def _serving(self):
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.complete)
        async with listening(app) as url:
            yield url

    def start(self):
        return in_a_thread(self._serving)


def config_of(toy, aligned_url, base_url, **changes):
    quick = {"max_retries": 2, **changes}
    return PreferConfig(
        aligned=toy["aligned"], base=toy["base"], num_answers=2, max_new_tokens=12,
        aligned_server=TeacherConfig(endpoint=aligned_url, **quick),
        base_server=TeacherConfig(endpoint=base_url, **quick),
    )  # fmt: skip


@pytest.fixture
def words(toy, tmp_path):
    """Tokenizer files alone, by role."""
    paths = {}
    for role in ("aligned", "base"):
        ignored = shutil.ignore_patterns("*.safetensors")
        paths[role] = str(shutil.copytree(toy[role], tmp_path / role, ignore=ignored))
    return paths


def test_rewards_of_our_own_server_are_those_of_local_models(toy, words, tmp_path):
    local = find_pair(PreferConfig(aligned=toy["aligned"], base=toy["base"]))
    with our_server(toy["aligned"]) as aligned_url, our_server(toy["base"]) as base_url:
        pair = find_pair(config_of(words, aligned_url, base_url))
        for role in ("aligned", "base"):
            expected = score_answers(load_scorer(getattr(local, role), local, STUDENT), ROWS)
            found = score_answers(open_scorer(role, pair, STUDENT, tmp_path), ROWS)
            assert [f.num_tokens for f in found] == [e.num_tokens for e in expected]
            for one, other in zip(found, expected, strict=True):
                assert one.total == pytest.approx(other.total, abs=1e-4 * max(1, one.num_tokens))


def test_a_server_that_tells_by_token_id_gives_the_same(toy, tmp_path):
    local = find_pair(PreferConfig(aligned=toy["aligned"], base=toy["base"]))
    expected = score_answers(load_scorer(local.base, local, STUDENT), ROWS)
    other = Other(toy["base"], max_model_len=99)
    with other.start() as url:
        scorer = open_scorer("base", find_pair(config_of(toy, url, url + "/")), STUDENT, tmp_path)
        other.faults = [503, 500]  # a server with too much to do is asked again
        found = score_answers(scorer, ROWS)
        assert scorer.longest == 99
        with pytest.raises(TrainingError, match=r"toy at http.* reads 99 tokens"):
            score_answers(scorer, [AnswerRow(QUESTIONS[0], "It is lovely. " * 30)])
    assert [f.total for f in found] == pytest.approx([e.total for e in expected], abs=1e-4)


def test_what_a_server_cannot_do_is_said_with_the_cure(toy, tmp_path, monkeypatch):
    other = Other(toy["base"], tells=False)
    with other.start() as url:
        pair = find_pair(config_of(toy, url, url + "/"))
        with pytest.raises(TrainingError, match=r"no log-probabilities of a prompt .*vLLM and"):
            open_scorer("base", pair, STUDENT, tmp_path)
        missing = find_pair(config_of(toy, url, url + "/", model="gone"))
        with pytest.raises(TrainingError, match="no model 'gone'; there are: toy"):
            open_scorer("aligned", missing._replace(base_server=None), STUDENT, tmp_path)
        other.tells = True
        scorer = open_scorer("base", pair, STUDENT, tmp_path)
        other.faults = [400]
        with pytest.raises(TrainingError, match=r"refuses a prompt of .*prefer.max_new_tokens"):
            score_answers(scorer, ROWS)
        other.faults = [500] * 99
        with pytest.raises(TrainingError, match=r"does not answer \(500 no\); start it"):
            score_answers(scorer, ROWS)
    with pytest.raises(TrainingError, match=r"does not answer .*`endpoint`"):
        open_scorer("base", pair, STUDENT, tmp_path)
    with our_server(toy["base"], key="secret") as url:
        pair = find_pair(config_of(toy, url, url + "/", key_variable="TOY_KEY", model="toy"))
        with pytest.raises(TrainingError, match="environment variable TOY_KEY"):
            open_scorer("base", pair, STUDENT, tmp_path)
        monkeypatch.setenv("TOY_KEY", "secret")
        assert open_scorer("base", pair, STUDENT, tmp_path).model == "toy"


def test_a_tokenizer_that_is_not_the_servers_is_refused(toy, tmp_path):
    save_foreign_model(tmp_path / "foreign")
    with our_server(toy["base"]) as url:
        config = config_of({**toy, "base": str(tmp_path / "foreign")}, url, url + "/")
        with pytest.raises(TrainingError, match="its tokenizer is another than the one that"):
            open_scorer("base", find_pair(config), STUDENT, tmp_path)


def test_a_pair_of_which_one_is_served_is_warned_of(toy, caplog):
    config = config_of(toy, "http://localhost:1/v1", "http://localhost:2/v1", model="toy")
    find_pair(config)
    assert not caplog.records
    find_pair(config.model_copy(update={"base_server": None}))
    assert "engines differ" in caplog.text


def test_pairs_are_scored_by_servers_too(toy, tmp_path):
    pairs = [StoredPair(prompt=f"How is the river number {n}?", chosen="It is lovely.",
                  rejected="It is dreadful.") for n in range(2)]  # fmt: skip
    with our_server(toy["aligned"]) as aligned_url, our_server(toy["base"]) as base_url:
        found = agree(
            pairs, config_of(toy, aligned_url, base_url), student=STUDENT, log_folder=tmp_path
        )
    assert found[0].by == "log ratio"
    assert found[0].share == 1


@pytest.mark.slow
def test_a_round_whose_server_went_away_goes_on_where_it_was(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("feldspar.prefer.candidates.PROMPTS_PER_SHARD", 2)
    aligned, base = Other(toy["aligned"]), Other(toy["base"])
    with aligned.start() as aligned_url, base.start() as base_url:
        config = config_of(toy, aligned_url, base_url, concurrency=1)
        context = RoundContext(
            config=config, student=STUDENT, train=TrainConfig(), pair=find_pair(config),
            reward=lambda a, b: log_ratio(a, b, "sum"), score=None, seed=1, progress=SILENT,
        )  # fmt: skip
        policy, prompts = base_checkpoint(toy["policy"]), [prompt(n) for n in range(6)]
        base.most = 6  # one to find out how it tells, five answers
        with pytest.raises(TrainingError, match="what there is so far is kept"):
            draw_candidates(policy, prompts, 2, tmp_path / "r", context)
        base.most = 1 << 30
        num_aligned = aligned.num_asked
        assert len(list((tmp_path / "r" / "base").glob("*.zst"))) == 1
        found = list(
            read_rows(draw_candidates(policy, prompts, 2, tmp_path / "r", context), Candidate)
        )
    assert aligned.num_asked == num_aligned
    local = RoundContext(
        config=config, student=STUDENT, train=TrainConfig(), score=None, seed=1,
        pair=find_pair(PreferConfig(aligned=toy["aligned"], base=toy["base"])),
        reward=context.reward, progress=SILENT,
    )  # fmt: skip
    path = draw_candidates(policy, prompts, 2, tmp_path / "local" / "r", local)
    expected = list(read_rows(path, Candidate))
    assert [c.text for c in found] == [c.text for c in expected]
    assert [c.reward for c in found] == pytest.approx([c.reward for c in expected], abs=1e-3)


@pytest.mark.slow
def test_the_pair_may_be_a_folder_or_a_command(toy, words, tmp_path):
    """A folder by the package's own engine, and two replicas of `feldspar serve`."""
    local = find_pair(PreferConfig(aligned=toy["aligned"], base=toy["base"]))
    serve = shlex.join([*module_command("feldspar.cli.main"), "serve"])
    command = f"{serve} {{model}} --port {{port}}"
    config = PreferConfig(
        **words, num_answers=2, max_new_tokens=12,
        aligned_server={"folder": toy["aligned"]},
        base_server={"command": command, "model": toy["base"], "replicas": 2},
    )  # fmt: skip
    pair = find_pair(config)
    for role in ("aligned", "base"):
        expected = score_answers(load_scorer(getattr(local, role), local, STUDENT), ROWS)
        scorer = open_scorer(role, pair, STUDENT, tmp_path)
        try:
            found = score_answers(scorer, ROWS)
        finally:
            close_scorer(scorer)
        assert [f.total for f in found] == pytest.approx([e.total for e in expected], abs=1e-3)
    assert {path.name for path in tmp_path.glob("*.log")} == {
        "base_server-0.log",
        "base_server-1.log",
    }


def test_a_served_model_is_known_by_its_name_or_content(toy, tmp_path):
    def key(**server):
        config = PreferConfig(aligned=toy["aligned"], base=toy["base"], base_server=server)
        return find_pair(config).base.digest

    moved = shutil.copytree(toy["base"], tmp_path / Path(toy["base"]).name)
    start = "serve {model} --port {port}"
    content = key(folder=toy["base"])
    assert content == key(folder=str(moved)) == key(command=start, model=str(moved))
    assert content != key(folder=toy["policy"])
    url = "http://localhost:1/v1"
    assert key(endpoint=url, model="m") == key(endpoint="http://localhost:2/v1", model="m")
    assert key(endpoint=url, model="m") != key(endpoint=url, model="m", revision="2")
    with pytest.raises(TeacherError, match=r"no prefer.base_server answers at http://localhost:1"):
        key(endpoint=url)
    # Unnamed: by what the server says that it has, at whichever address.
    with our_server(toy["base"]) as one, our_server(toy["base"]) as other:
        assert key(endpoint=one) == key(endpoint=other) != content


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({}, "needs an `endpoint`"),
        ({"endpoint": "http://localhost:1/v1", "protocol": "anthropic"}, "needs log-probabilities"),
        ({"command": "serve --port {port}"}, "needs the `model`"),
    ],
)
def test_what_tells_no_log_probabilities_is_refused(server, said):
    with pytest.raises(ValueError, match=said):
        PreferConfig(aligned="a", base="b", aligned_server=server)
