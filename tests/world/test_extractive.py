"""The teacher without knowledge: any text in any language, and only what the text says."""

from pathlib import Path

import pytest

from feldspar.config import ErrorRates
from feldspar.records import Message
from feldspar.serve import ChatRequest
from feldspar.text.sentences import split_sentences
from feldspar.world import extractive
from feldspar.world.brain import Brain
from feldspar.world.sections import Block, read_blocks, write_blocks

DOCUMENTS = Path(__file__).parents[2].parent / "shared/data/taxonomy/knowledge-with-docs/docs"
BRAIN = Brain(None, ErrorRates())
SAX = """# Alto saxophone

The **alto saxophone** is a member of the [saxophone](saxophone
"wikilink") family. It was invented by Adolphe Sax in the 1840s.
The saxophone had a role in the development of jazz.

| key | range |
|---|---|
- It is pitched in the key of E flat.
"""


def reply(stage: str, text: str, seed: int = 0, brain: Brain = BRAIN) -> str:
    request = ChatRequest(
        model="m", messages=(Message(role="user", content=text),), stage=stage, seed=seed
    )
    return brain.complete(request).choices[0].text


def test_sentences_lose_their_markup() -> None:
    assert split_sentences(SAX) == [
        "The alto saxophone is a member of the saxophone family.",
        "It was invented by Adolphe Sax in the 1840s.",
        "The saxophone had a role in the development of jazz.",
        "It is pitched in the key of E flat.",
    ]


def test_a_masked_sentence_is_answered_by_the_sentence() -> None:
    for block in extractive.make_pairs(SAX, seed=0):
        assert extractive.is_faithful(SAX, block.answer)
        if extractive.MASK in block.question:
            before, after = block.question.split('"', 1)[1].rstrip('"').split(extractive.MASK)
            assert block.answer.startswith(before)
            assert block.answer.endswith(after)
            assert len(block.answer) > len(before) + len(after)


def test_pairs_of_real_documents_are_new_in_each_call_and_faithful() -> None:
    if not DOCUMENTS.is_dir():
        pytest.skip(f"{DOCUMENTS} is not there: the shared data pack is not beside the project")
    paths = sorted(path for path in DOCUMENTS.rglob("*.md") if path.stat().st_size > 5000)
    assert paths
    for path in paths:
        passage = path.read_text(encoding="utf-8")[:4000]
        text = f"### Document\n{passage}\n\n### How many\n4\n"
        blocks = [
            block
            for seed in range(4)
            for block in read_blocks(reply("knowledge-pairs", text, seed))
        ]
        assert len(blocks) == len({block.question for block in blocks}) == 16, path
        lengths = sorted(len(block.answer.split()) for block in blocks)
        assert lengths[0] < lengths[-1], path
        for block in blocks:
            judged = f"### Document\n{passage}\n### Question\n{block.question}\n"
            judged += f"### Answer\n{block.answer}\n"
            assert reply("judge-faithful", judged).endswith("YES"), (path, block)
            assert reply("judge-relevant", judged).endswith("YES"), (path, block)


@pytest.mark.parametrize(
    ("text", "has_pairs"),
    [
        ("", False),
        (" \n\n ", False),
        ("。", False),
        ("# Only\n## headings", False),
        ("東京は日本の首都です。人口は約千四百万人です。富士山は日本で一番高い山です。", True),
        ("ไทยเป็นประเทศที่สวยงามมากและมีอาหารอร่อย", True),
        ("Москва — столица России. Город стоит на реке. Люди живут давно и дружно.", True),
        ("القاهرة هي عاصمة مصر. يعيش فيها ملايين الناس.", True),
        ("x" * 100_000, False),
        ("a " * 50_000, True),
        ("](" * 30_000 + "((((", False),
        ("<" * 30_000, False),
        (" \n" * 30_000, False),
        ("7" * 30_000 + " + 1", False),
        ("\u2028\x00\ud800 b c d e f g.", True),
        ("[Question]\nwho?\n[End]\nA line that tries to be a marker of a reply.", True),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_any_text_is_survived(text: str, has_pairs: bool) -> None:
    prompt = f"### Document\n{text}\n### How many\n3\n"
    blocks = read_blocks(reply("knowledge-pairs", prompt))
    assert bool(blocks) == has_pairs
    for stage in ("skill-context", "skill-questions", "skill-answer", "judge-question"):
        reply(stage, prompt)
        reply(stage, text)


def test_what_the_document_does_not_say_is_not_faithful() -> None:
    claim = "It was sold to a king of Norway for ninety gold coins."
    assert not extractive.is_faithful(SAX, f"It was invented by Adolphe Sax in the 1840s. {claim}")
    assert not extractive.is_faithful(SAX, "")
    brain = Brain(None, ErrorRates(unfaithful=1.0))
    blocks = read_blocks(reply("knowledge-pairs", f"### Document\n{SAX}", brain=brain))
    assert not extractive.is_faithful(SAX, blocks[0].answer)


def test_a_skill_sets_its_examples_together() -> None:
    examples = [Block(question=f"Say {w}.", answer=w.upper()) for w in ("one", "two", "three")]
    shown = f"### Task\nshout\n### Examples\n{write_blocks(examples)}\n"
    blocks = read_blocks(reply("skill-questions", f"{shown}### How many\n6\n"))
    assert len({block.question for block in blocks}) == 6
    first, then = blocks[0].question.split("\n")
    answer = reply("skill-answer", f"{shown}### Question\n{blocks[0].question}\n")
    assert answer.split("\n") == [
        f"{label} {asked.split()[-1].rstrip('.').upper()}"
        for label, asked in (("First:", first), ("Then:", then))
    ]
    judged = f"{shown}### Question\n{blocks[0].question}\n### Answer\n{answer}\n"
    assert reply("judge-question", judged).endswith("YES")
    assert reply("judge-answer", judged).endswith("Rating: 2")


def test_a_grounded_skill_is_answered_from_its_context() -> None:
    example = Block(question="Where is the cat?", answer="In Rome.", context="The cat is in Rome.")
    shown = f"### Examples\n{write_blocks([example])}\n"
    assert read_blocks(reply("skill-context", shown)) == [Block(context=example.context)]
    context = "The dog sleeps all day long. The cat of my aunt is in Paris now."
    answer = reply(
        "skill-answer", f"{shown}### Context\n{context}\n### Question\nWhere is the cat?\n"
    )
    assert answer == "The cat of my aunt is in Paris now."
