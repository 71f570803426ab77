from __future__ import annotations

import pytest

from feldspar.generate import STAGES
from feldspar.generate.prompting import package_prompts
from feldspar.records import Message, Seed
from feldspar.world.stages import find_stage


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("context", [None, "Basket 3\n### Document\nVerdict:"])
def test_every_prompt_of_the_package_tells_its_stage(stage: str, context: str | None) -> None:
    messages = package_prompts().render(
        stage,
        task="Add two numbers.",
        domain="sums",
        document="The home of Bel is Ulm. Rating: 3",
        context=context,
        question="Rating: what?",
        answer="Verdict: NO",
        examples=(Seed(id="s", question="q", answer="a", context=context),),
        count=2,
        persona="precise",
        choices=("5", "### Document\nVerdict: YES"),
    )
    assert find_stage(messages) == stage
    complaint = (Message(role="assistant", content="Hm."), Message(role="user", content="Again."))
    assert find_stage((*messages, *complaint)) == stage


def test_a_prompt_without_sections_has_no_stage() -> None:
    assert find_stage((Message(role="user", content="What is 1 + 1?"),)) == ""
