"""A scalar reward model behind a server that classifies conversations as vLLM does."""

import contextlib
import math

import pytest
import torch
from aiohttp import web
from in_threads import in_a_thread
from pydantic import ValidationError
from toy_models import prompt, tiny_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

from feldspar.ahead import Subject, servers
from feldspar.config import PreferConfig, Recipe, StudentConfig, TeacherConfig, TrainConfig
from feldspar.endpoint.classify import address, read_outputs
from feldspar.errors import TeacherError, TrainingError
from feldspar.prefer.candidates import RoundContext, draw_candidates
from feldspar.prefer.reward_model import RewardModel, open_reward_model
from feldspar.progress import SILENT
from feldspar.records import Candidate, Message
from feldspar.runs import read_rows
from feldspar.serve import listening
from feldspar.student.model import base_checkpoint
from feldspar.student.scoring.log_probs import AnswerRow

STUDENT = StudentConfig(base="tiny")
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
ROWS = [
    AnswerRow((Message(role="user", content=f"How is stone {n}?"),), answer)
    for n in range(10)
    for answer in ("It is lovely.", "It is dreadful.")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier with one output, whose rewards lie far from 0."""
    path = tmp_path_factory.mktemp("reward-model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        model.score.weight.mul_(300)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


class Classifier:
    """Speaks `/classify` with messages as vLLM does: a sigmoid unless that is turned off."""

    def __init__(self, folder):
        self.model = RewardModel(folder, STUDENT)
        self.bodies = []
        self.faults = []
        """Statuses that the next calls are answered with."""
        self.num_outputs = 1
        self.knows_activation = True
        self.most = math.inf
        """Calls after which it fails."""

    async def models(self, _):
        return web.json_response({"object": "list", "data": [{"id": "rm", "object": "model"}]})

    async def classify(self, http):
        body = await http.json()
        self.bodies.append(body)
        if len(self.bodies) > self.most:
            self.faults.append(500)
        if self.faults:
            return web.json_response({"error": {"message": "no"}}, status=self.faults.pop(0))
        *asked, answer = body["messages"]
        assert answer["role"] == "assistant"
        [reward] = self.model.read([AnswerRow([Message(**m) for m in asked], answer["content"])])
        if not self.knows_activation or body.get("use_activation") is not False:
            reward = 1 / (1 + math.exp(-reward))
        row = {"index": 0, "label": "LABEL_0", "probs": [reward] * self.num_outputs}
        return web.json_response({"object": "list", "data": [row | {"num_classes": 1}]})

    @contextlib.asynccontextmanager
    async def _serving(self):
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/classify", self.classify)
        async with listening(app) as url:
            yield url

    def start(self):
        return in_a_thread(self._serving)


@pytest.fixture
def classifier(folder):
    return Classifier(folder)


def config_of(url, **changes):
    server = TeacherConfig(endpoint=url, **{"model": "rm", "max_retries": 2, **changes})
    return PreferConfig(reward="reward-model", reward_model_server=server, max_new_tokens=4)


def test_a_served_reward_model_gives_the_rewards_of_a_local_one(classifier, folder, tmp_path):
    expected = RewardModel(folder, STUDENT).read(ROWS)
    assert max(expected) > 1.5 or min(expected) < -0.5
    with classifier.start() as url:
        model = open_reward_model(config_of(url, concurrency=4), STUDENT, tmp_path)
        classifier.faults = [503, 500]  # a server with too much to do is asked again
        found = model.read(ROWS)
    assert found == pytest.approx(expected, rel=1e-5)
    body = classifier.bodies[-1]
    assert (body["model"], body["add_generation_prompt"]) == ("rm", False)
    assert model.name.startswith("rm at http")


def test_a_sigmoid_is_suspected_aloud(classifier, tmp_path, caplog):
    classifier.knows_activation = False
    with classifier.start() as url:
        open_reward_model(config_of(url), STUDENT, tmp_path).read(ROWS)
    assert "all of 20 rewards lie from 0 to 1" in caplog.text


def test_what_is_no_reward_is_said_with_the_cure(classifier, tmp_path):
    classifier.num_outputs = 2
    with classifier.start() as url:
        with pytest.raises(TrainingError, match=r"returns 2 outputs, .*one output with `vllm"):
            open_reward_model(config_of(url), STUDENT, tmp_path)
        classifier.num_outputs = 1
        model = open_reward_model(config_of(url), STUDENT, tmp_path)
        classifier.faults = [400]
        with pytest.raises(TrainingError, match=r"refuses a prompt with its answer \(400 no\)"):
            model.read(ROWS)
        classifier.faults = [500] * 99
        with pytest.raises(TrainingError, match=r"does not answer \(500 no\)"):
            model.read(ROWS)
        with pytest.raises(TrainingError, match="no model 'other'; there are: rm"):
            open_reward_model(config_of(url, model="other"), STUDENT, tmp_path)


def test_a_killed_round_asks_for_the_rest_alone(classifier, folder, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("feldspar.prefer.candidates.PROMPTS_PER_SHARD", 2)
    asked = [prompt(number) for number in range(4)]
    policy = base_checkpoint(toy["policy"])
    with classifier.start() as url:
        context = RoundContext(
            config=config_of(url, max_retries=0), student=STUDENT, train=TrainConfig(), pair=None,
            seed=1, reward=lambda *_: 0.0, score=lambda _: [], progress=SILENT,
        )  # fmt: skip
        classifier.most = 5  # the trial, and four answers of the first shard
        with pytest.raises(TrainingError):
            draw_candidates(policy, asked, 2, tmp_path / "r", context)
        classifier.most, classifier.bodies, classifier.faults = math.inf, [], []
        file = draw_candidates(policy, asked, 2, tmp_path / "r", context)
    questions = {body["messages"][0]["content"] for body in classifier.bodies}
    assert questions & {p.messages[0].content for p in asked[:2]} == set()
    assert questions >= {p.messages[0].content for p in asked[2:]}
    candidates = list(read_rows(file, Candidate))
    said = {p.id: p.messages for p in asked}
    rows = [AnswerRow(said[c.prompt], c.text, c.ended) for c in candidates]
    expected = RewardModel(folder, STUDENT).read(rows)
    assert [c.reward for c in candidates] == pytest.approx(expected, rel=1e-5)


def test_the_server_is_looked_at_before_a_run(classifier):
    with classifier.start() as url:
        recipe = Recipe(student=STUDENT, taxonomy={"path": "t"}, prefer=config_of(url))
        subject = Subject(recipe=recipe, named=recipe, run_path=None)
        assert servers.reward_servers(subject) == f"rm at {url}, rewards conversations"
        classifier.num_outputs = 2
        with pytest.raises(TeacherError, match=r"prefer\.reward_model_server at .* 2 outputs"):
            servers.reward_servers(subject)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reward_model_server": {"endpoint": "http://h/v1"}}, "needs the `model` that it serves"),
        ({"reward_model_server": {"folder": "m"}}, "needs an `endpoint`"),
        (
            {"reward_model": "m", "reward_model_server": {"endpoint": "http://h/v1", "model": "m"}},
            "name one of the two",
        ),
    ],
)
def test_a_reward_model_is_named_once_and_by_name(given, says):
    with pytest.raises(ValidationError, match=says):
        PreferConfig(reward="reward-model", **given)


def test_replies_are_read_with_care():
    assert address("https://h/x/v1") == "https://h/x/classify"
    assert address("http://h") == "http://h/classify"
    assert read_outputs({"data": [{"probs": [-3, 2.5]}]}) == [-3.0, 2.5]
    for odd in (None, {}, {"data": []}, {"data": [{}]}, {"data": [{"probs": []}]}):
        assert read_outputs(odd) is None
    for value in ("1", None, True, math.nan, math.inf):
        assert read_outputs({"data": [{"probs": [value]}]}) is None
