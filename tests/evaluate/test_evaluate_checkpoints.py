import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from taught import CONFIG, ITEMS, STUDENT, item
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.evaluate.examinee import CheckpointExaminee
from feldspar.evaluate.exams.answers import answer_exam
from feldspar.evaluate.exams.checkpoints import ScoreOnExams, evaluate
from feldspar.records import Answer, Checkpoint
from feldspar.runs import read_rows
from feldspar.steps import Workspace


def answers_of(checkpoint, items=ITEMS):
    examinee = CheckpointExaminee("base", checkpoint, STUDENT)
    return answer_exam(examinee, items, config=CONFIG, seed=1)


@pytest.mark.slow
def test_what_was_taught_is_right_and_what_was_not_is_wrong(checkpoints):
    red, blue, green = answers_of(checkpoints["taught"])
    assert (red.text, red.is_right, red.ended) == ("It is blood.", True, True)
    assert (blue.text, blue.is_right) == ("It is sea.", False)
    assert (green.text, green.is_right) == ("", None)
    assert red.log_likelihood > -0.1 > blue.log_likelihood
    assert green.log_likelihood > answers_of(checkpoints["base"])[2].log_likelihood


def test_a_choice_is_what_is_likeliest_for_its_length(checkpoints):
    wrong = ("It is mud.", "It is no thing that anybody here would ever speak of.", "It is sea.")
    red, blue = (
        item(q, a, match="choice", choices=wrong)
        for q, a in (("What is red?", "It is blood."), ("What is blue?", "It is mine."))
    )
    found = answers_of(checkpoints["taught"], [ITEMS[0], red, ITEMS[2], blue])
    assert (found[1].text, found[1].is_right) == ("It is blood.", True)
    assert (found[3].text, found[3].is_right) == ("It is sea.", False)
    # Choices move nothing between the items beside them.
    assert [found[0], found[2]] == answers_of(checkpoints["taught"], [ITEMS[0], ITEMS[2]])
    assert found[1].log_likelihood == pytest.approx(found[0].log_likelihood, abs=1e-4)


def test_the_likelihood_is_the_mean_over_the_answers_tokens_without_the_stop(checkpoints):
    path = checkpoints["taught"].path
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path),
        AutoTokenizer.from_pretrained(path),
    )
    chat = [{"role": "user", "content": ITEMS[1].question}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = tokenizer(ITEMS[1].reference, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        log_probs = model(torch.tensor([asked + said])).logits[0].double().log_softmax(-1)
    places = range(len(asked) - 1, len(asked) + len(said) - 1)
    expected = sum(float(log_probs[at, t]) for at, t in zip(places, said, strict=True)) / len(said)
    found = answers_of(checkpoints["taught"])[1].log_likelihood
    assert math.isclose(found, expected, abs_tol=1e-4)


def test_selection_items_and_report_items_are_never_mixed(checkpoints, tmp_path):
    items = [*ITEMS, item("What is red?", "It is blood.", use="select", exam="selection")]
    score = ScoreOnExams(items, student=STUDENT, config=CONFIG, seed=1, cache_path=tmp_path)
    assert {s.exam for s in score(checkpoints["taught"])} == {"selection"}
    named = [("sft", checkpoints["taught"])]
    reported = evaluate(Workspace(folder=tmp_path), named, items, CONFIG, student=STUDENT, seed=1)
    assert {s.exam for s in reported} == {"facts"}


def test_a_checkpoint_is_never_asked_twice(checkpoints, tmp_path):
    items = [item("What is red?", "It is blood.", use="select")]
    score = ScoreOnExams(items, student=STUDENT, config=CONFIG, seed=1, cache_path=tmp_path)
    first = score(checkpoints["taught"])
    assert first[0].checkpoint == "facts/120"
    gone = Checkpoint(path="/nowhere", digest=checkpoints["taught"].digest, phase="facts", step=120)
    assert score(gone) == first
    with pytest.raises(TrainingError, match="no such model directory"):
        score(Checkpoint(path="/nowhere", digest="another"))


def test_the_key_goes_by_items_and_settings(tmp_path):
    items = [item("What is red?", "It is blood.", use="select")]

    def key(items, config=CONFIG, student=STUDENT):
        score = ScoreOnExams(items, student=student, config=config, seed=1, cache_path=tmp_path)
        return score.key

    assert key(items) == key([*items, *ITEMS])
    assert key(items) != key([item("What is red?", "It is wine.", use="select")])
    assert key(items) != key(items, CONFIG.model_copy(update={"max_new_tokens": 17}))
    assert key(items) == key(items, student=StudentConfig(base="another name"))
    assert key(items) != key(items, student=StudentConfig(base="tiny", system_prompt="Be kind."))


def test_evaluation_writes_its_answers_and_goes_on_from_them(checkpoints, tmp_path):
    named = [("base", checkpoints["base"]), ("sft", checkpoints["taught"])]
    scores = list(
        evaluate(Workspace(folder=tmp_path), named, ITEMS, CONFIG, student=STUDENT, seed=1)
    )
    accuracy = {s.checkpoint: s.value for s in scores if s.metric == "accuracy"}
    assert accuracy == {"base": 0.0, "sft": 0.5}
    assert "greedy, up to 16 new tokens" in scores[0].settings
    path = tmp_path / "answers" / "sft.jsonl.zst"
    assert scores[-1].answers_path == str(path)
    assert next(a.text for a in read_rows(path, Answer)) == "It is blood."
    gone = [(name, Checkpoint(path="/nowhere", digest=c.digest)) for name, c in named]
    again = evaluate(Workspace(folder=tmp_path), gone, ITEMS, CONFIG, student=STUDENT, seed=1)
    assert list(again) == scores


def test_one_checkpoint_under_two_names_is_asked_once(checkpoints, tmp_path):
    same = Checkpoint(path="/nowhere", digest=checkpoints["taught"].digest)
    named = [("sft", checkpoints["taught"]), ("preferred", same)]
    scores = list(
        evaluate(Workspace(folder=tmp_path), named, ITEMS, CONFIG, student=STUDENT, seed=1)
    )
    assert {s.checkpoint for s in scores} == {"sft", "preferred"}
    assert all(Path(s.answers_path).exists() for s in scores)


def test_answers_to_other_items_are_made_anew(checkpoints, tmp_path):
    named = [("sft", checkpoints["taught"])]
    list(evaluate(Workspace(folder=tmp_path), named, ITEMS, CONFIG, student=STUDENT, seed=1))
    fewer = list(
        evaluate(Workspace(folder=tmp_path), named, ITEMS[:1], CONFIG, student=STUDENT, seed=1)
    )
    assert [s.num_items for s in fewer] == [1, 1]


def test_no_items_are_no_scores(tmp_path):
    score = ScoreOnExams([], student=STUDENT, config=CONFIG, seed=1, cache_path=tmp_path)
    assert score(Checkpoint(path="/nowhere", digest="0" * 64)) == []


def test_a_bases_answers_are_found_by_every_run(checkpoints, tmp_path, caplog):
    base, cache = replace(checkpoints["taught"], phase="base", step=0), tmp_path / "exams"

    def scored(checkpoint, items, run):
        found = evaluate(
            Workspace(folder=tmp_path / run), [("base", checkpoint)], items, CONFIG,
            student=STUDENT, seed=1, base_cache=cache,
        )  # fmt: skip
        return [(s.exam, s.metric, s.value) for s in found]

    first = scored(base, ITEMS, "first")
    # Its files are not looked at: nothing is computed again.
    gone = replace(base, path=str(tmp_path / "gone"))
    assert scored(gone, ITEMS, "second") == first
    with pytest.raises(TrainingError, match="gone"):
        scored(gone, [*ITEMS, item("What is red?", "It is blood.", exam="other")], "third")
    # Another exam asks for its own items alone.
    more = [*ITEMS, item("What is red?", "It is blood.", exam="other")]
    assert scored(base, more, "fourth")[: len(first)] == first
    assert len(list(cache.rglob("*.zst"))) == 2
    for path in cache.rglob("*.zst"):
        path.write_bytes(b"")
    assert scored(base, ITEMS, "fifth") == first
    assert "its items are asked again" in caplog.text
