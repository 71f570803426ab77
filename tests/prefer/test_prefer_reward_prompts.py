"""Domain prompts of the reward pair: which leaf reads which, and that both models read it."""

import pytest
from jinja2 import TemplateError
from pydantic import ValidationError
from toy_models import prompt, tiny_tokenizer

from feldspar.config import (
    PreferConfig,
    RewardDomainConfig,
    RewardPromptsConfig,
    StudentConfig,
    TrainConfig,
)
from feldspar.errors import RecipeError
from feldspar.keys import content_key
from feldspar.prefer.candidates import RoundContext, draw_candidates
from feldspar.prefer.estimate import volume
from feldspar.prefer.methods import method_of
from feldspar.prefer.picks import survey
from feldspar.prefer.reward import find_pair, load_scorer, log_ratio, score_answers
from feldspar.prefer.reward_prompts import PlacedLeaf, check_turns, framed, unused_domains
from feldspar.progress import SILENT
from feldspar.records import Candidate, Message
from feldspar.runs import read_rows
from feldspar.student.model import base_checkpoint
from feldspar.student.scoring.log_probs import AnswerRow

STUDENT = StudentConfig(base="tiny")
EXAMPLE = {"question": "How is rain?", "answer": "Wet."}
QUESTION = [Message(role="user", content="How?")]
PROMPTS = RewardPromptsConfig.model_validate(
    {
        "default": "Be kind.",
        "domain": [
            {"path": "knowledge"},
            {"path": "/knowledge/science/", "text": "Be exact.", "examples": [EXAMPLE]},
            {"path": "knowledge/science/jokes", "text": ""},
        ],
    }
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + CHATML
)
DROPS = CHATML.replace("<|im_start|>{{", "{% if m['role'] != 'system' %}<|im_start|>{{", 1).replace(
    "<|im_end|>\n{%", "<|im_end|>\n{% endif %}{%", 1
)


def spoken(found):
    return [(message.role, message.content) for message in found.messages]


def test_the_longest_path_wins_and_the_default_is_for_the_rest():
    deep = framed(QUESTION, "knowledge/science/geology", PROMPTS)
    assert deep.domain == "knowledge/science"
    assert spoken(deep) == [
        ("system", "Be exact."),
        ("user", "How is rain?"),
        ("assistant", "Wet."),
        ("user", "How?"),
    ]
    assert framed(QUESTION, "knowledge/scienceless", PROMPTS).domain == "knowledge"
    assert framed(QUESTION, "knowledge/science", PROMPTS).domain == "knowledge/science"
    exempt = framed(QUESTION, "knowledge/science/jokes/puns", PROMPTS)
    assert (exempt.domain, spoken(exempt)) == ("", [("user", "How?")])
    other = framed(QUESTION, "writing", PROMPTS)
    assert (other.domain, spoken(other)[0]) == ("default", ("system", "Be kind."))
    assert framed(QUESTION, "knowledge", None).messages == tuple(QUESTION)


def test_a_text_can_stand_in_the_users_turn():
    config = PROMPTS.model_copy(update={"turn": "user"})
    assert spoken(framed(QUESTION, "knowledge/science/x", config)) == [
        ("user", "Be exact.\n\nHow is rain?"),
        ("assistant", "Wet."),
        ("user", "How?"),
    ]


def test_a_branchs_own_text_becomes_part_of_the_recipe_and_of_its_key():
    texts = {
        path: RewardDomainConfig(path=path).text
        for path in ("knowledge", "foundational_skills/sums", "compositional_skills")
    }
    assert len(set(texts.values())) == 3
    assert all(40 < len(text) < 400 and "\n" not in text for text in texts.values())
    pair = {"aligned": "a", "base": "b"}
    with_text = PreferConfig(**pair, reward_prompts=PROMPTS)
    assert PreferConfig.model_validate(with_text.model_dump(mode="json")) == with_text
    assert content_key(with_text) != content_key(PreferConfig(**pair))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "says nothing"),
        ({"domain": [{"path": "writing"}]}, "'writing' lies in none of the branches"),
        ({"domain": [{"path": "knowledge"}, {"path": "knowledge/"}]}, "have the path 'knowledge'"),
    ],
)
def test_prompts_that_mean_nothing_are_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        RewardPromptsConfig.model_validate(given)


def test_a_reward_model_has_no_prompts():
    with pytest.raises(ValidationError, match=r"take prefer\.reward_prompts out"):
        PreferConfig(reward="reward-model", reward_model="m", reward_prompts=PROMPTS)


def test_domains_without_questions_are_found():
    config = PreferConfig(
        aligned="a",
        base="b",
        branches=("compositional",),
        reward_prompts=RewardPromptsConfig(
            domain=(
                RewardDomainConfig(path="knowledge"),
                RewardDomainConfig(path="compositional_skills/rimes", text="Rhyme."),
                RewardDomainConfig(path="compositional_skills/rhymes"),
            )
        ),
    )
    leaves = [
        PlacedLeaf("knowledge/science", "knowledge"),
        PlacedLeaf("compositional_skills/rhymes/short", "compositional"),
    ]
    branch, path = unused_domains(config, leaves)
    assert "'knowledge', whose branch is not in prefer.branches" in branch
    assert "'compositional_skills/rimes', which no leaf lies in" in path
    assert volume(config, 100).domain_tokens > 10


def tokenizer_folder(path, template):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("template", [REFUSES, DROPS], ids=["refuses", "drops"])
def test_a_template_without_a_system_turn_is_refused_with_the_cure(template, tmp_path):
    folder = tokenizer_folder(tmp_path, template)
    with pytest.raises(RecipeError, match=r'set prefer\.reward_prompts\.turn = "user"') as refused:
        check_turns(folder, PROMPTS)
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, TemplateError)
    check_turns(folder, PROMPTS.model_copy(update={"turn": "user"}))
    check_turns(tokenizer_folder(tmp_path / "chatml", CHATML), PROMPTS)


@pytest.mark.slow
def test_both_models_read_the_prompt_of_the_questions_leaf(toy, tmp_path):
    prompts = RewardPromptsConfig(
        domain=(RewardDomainConfig.model_validate({"path": "leaf1", "text": "Say good."}),)
    )
    config = PreferConfig(
        aligned=toy["aligned"], base=toy["base"], reward_prompts=prompts, max_new_tokens=4
    )
    pair = find_pair(config)
    context = RoundContext(
        config=config, student=STUDENT, train=TrainConfig(), pair=pair, seed=1,
        reward=lambda a, b: log_ratio(a, b, "sum"), score=lambda _: [], progress=SILENT,
    )  # fmt: skip
    asked = [prompt(0), prompt(1)]
    file = draw_candidates(base_checkpoint(toy["policy"]), asked, 3, tmp_path / "r", context)
    candidates = list(read_rows(file, Candidate))
    assert [c.domain for c in candidates] == [""] * 3 + ["leaf1"] * 3
    said = {p.id: p.messages for p in asked}
    said["p1"] = (Message(role="system", content="Say good."), *said["p1"])
    rows = [AnswerRow(said[c.prompt], c.text, c.ended) for c in candidates]
    read = [
        score_answers(load_scorer(model, pair, STUDENT), rows)
        for model in (pair.aligned, pair.base)
    ]
    expected = [log_ratio(a, b, "sum") for a, b in zip(*read, strict=True)]
    assert [c.reward for c in candidates] == pytest.approx(expected, abs=1e-4)
    bare = [AnswerRow(asked[1].messages, c.text, c.ended) for c in candidates[3:]]
    aligned = score_answers(load_scorer(pair.aligned, pair, STUDENT), bare)
    assert [a.total for a in aligned] != pytest.approx([a.total for a in read[0][3:]], abs=1e-3)
    assert survey(candidates, method_of(config), 1).figures.domains == {"": 1, "leaf1": 1}
