"""Answers that the base says again in its own words."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_base import STUDENT, save_base

from feldspar.config import OwnVoiceConfig
from feldspar.mix.own_voice import (
    INSTRUCTION,
    OWN_VOICE_FILE,
    Retelling,
    is_asked,
    prompt_of,
    say_again,
    why_not_same,
)
from feldspar.records import Sample
from feldspar.steps import Workspace
from feldspar.student.inference.sample import Sampled

SAX = Sample(
    id="sax",
    leaf="knowledge/music",
    branch="knowledge",
    question="When was the saxophone invented?",
    answer="The saxophone was invented by Adolphe Sax in 1846 for military bands.",
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Adolphe Sax invented it in 1846, for bands of the military.", ""),
        ("In 1846 the saxophone was made for military bands by Adolphe Sax.", ""),
        ("It was invented in 1846 for military bands.", "a name or a number is missing"),
        ("Adolphe Sax invented it for military bands.", "a name or a number is missing"),
        (
            "Adolphe Sax of Dinant invented it in 1846 for military bands.",
            "a name or a number is added",
        ),
        ("Adolphe Sax did it in 1846.", "too little of it is said"),
        (SAX.answer * 3, "too long"),
        ("...", "nothing is said"),
    ],
)
def test_the_same_content_is_told_by_names_numbers_words_and_length(said: str, reason: str) -> None:
    assert why_not_same(SAX.question, SAX.answer, said) == reason


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("No, dogs may not be taken into the reserve.", "Yes, dogs may be taken into the reserve."),
        ("No, dogs may not be taken into the reserve.", "No, dogs may be taken into the reserve."),
        ("The mill does not open on Sundays.", "The mill does open on Sundays."),
        ("Only residents who own a house apply.", "Residents who own a house apply."),
        ("It leaves from the northern harbour.", "It leaves from the southern harbour."),
        ("Das ist hier nicht erlaubt.", "Das ist hier erlaubt."),
        ("\u72ac\u306f\u5165\u308c\u306a\u3044\u3002", "\u72ac\u306f\u5165\u308c\u308b\u3002"),
    ],
)
def test_the_opposite_is_not_the_same(answer: str, said: str) -> None:
    assert why_not_same("What is so?", answer, said)


def test_no_may_be_said_in_other_words() -> None:
    answer = "The mill does not open on Sundays."
    assert not why_not_same("When is it open?", answer, "On Sundays the mill doesn't open.")


def test_only_what_is_the_same_takes_the_teachers_place(caplog: pytest.LogCaptureFixture) -> None:
    retelling = Retelling()
    same = "Adolphe Sax invented it in 1846, for military bands."
    assert retelling.retold(SAX, Sampled(f" {same}\n", True, 9)) == replace(SAX, answer=same)
    assert retelling.retold(SAX, Sampled(same, False, 9)) == SAX
    assert retelling.retold(SAX, Sampled("In Paris.", True, 9)) == SAX
    told = json.loads(retelling.as_json())
    assert (told["num_asked"], told["num_taken"]) == (3, 1)
    assert told["reasons"] == {"cut off": 1, "a name or a number is missing": 1}
    assert told["examples"][1]["base"] == "In Paris."
    with caplog.at_level(logging.WARNING):
        retelling.tell()
    assert not caplog.text


def test_kept_answers_of_the_named_branches_are_asked_for() -> None:
    config = OwnVoiceConfig()
    assert is_asked(SAX, config)
    assert is_asked(replace(SAX, kind="reversed"), config)
    assert not is_asked(replace(SAX, kind="document"), config)
    assert not is_asked(replace(SAX, kind="unanswerable"), config)
    assert not is_asked(replace(SAX, rejected_because="judge: not faithful"), config)
    assert not is_asked(replace(SAX, branch="foundational"), config)
    assert prompt_of(SAX) == INSTRUCTION.format(question=SAX.question, answer=SAX.answer)
    assert "{" not in prompt_of(SAX)


def test_a_base_that_is_not_able_leaves_all_as_it_was_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    base = save_base(tmp_path / "base")
    samples = [SAX, replace(SAX, id="text", kind="document"), replace(SAX, id="more")]
    config = OwnVoiceConfig(max_new_tokens=8)
    with caplog.at_level(logging.WARNING):
        said = list(
            say_again(Workspace(folder=tmp_path), samples, base, config, student=STUDENT, seed=1)
        )
    assert said == samples
    assert "0 of 2 answers" in caplog.text
    assert "hardly able" in caplog.text
    assert json.loads((tmp_path / OWN_VOICE_FILE).read_text("utf-8"))["num_asked"] == 2
