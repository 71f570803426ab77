"""A model without a chat template, as its files have it: for texts and ids that are given whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.records import Message
from feldspar.student.answering_weights import hold_to_answer
from feldspar.student.lm_head import check_head
from feldspar.student.model import Student, find_device, find_dtype, read_model, uses_bos
from feldspar.student.template.layout import TemplatePiece, TemplateTurn
from feldspar.student.template.render import Template


class PlainTemplate(Template):
    """No template at all: a prompt is its text, as the tokenizer encodes it."""

    def __init__(self, tokenizer: Any) -> None:
        stop_id, pad_id = eot_of(tokenizer), tokenizer.pad_token_id
        super().__init__(
            tokenizer,
            layout=_plain_turns,
            stop_id=stop_id,
            pad_id=stop_id if pad_id is None else pad_id,
            bos_id=tokenizer.bos_token_id if uses_bos(tokenizer) else None,
        )
        self._tokenizer = tokenizer

    def decode_answers(self, answers: Sequence[Sequence[int]]) -> list[str]:
        return [self._tokenizer.decode(list(ids), skip_special_tokens=True) for ids in answers]


def eot_of(tokenizer: Any) -> int:
    """The token that ends a text. Raises TrainingError where a tokenizer has none."""
    ids = (tokenizer.eos_token_id, tokenizer.bos_token_id)
    found = next((i for i in ids if i is not None), None)
    if found is None:
        raise TrainingError("the tokenizer has neither a start nor a stop token; give it one")
    return int(found)


def load_plain_student(path: str, config: StudentConfig) -> Student:
    """A checkpoint as it is: no tokens are added, so its probabilities are those of its files.

    Raises TrainingError where it cannot be loaded.
    """
    model, tokenizer = read_model(path)
    device = find_device(config.device)
    model.to(device).eval()
    check_head(model)
    dtype = find_dtype(config, device, model)
    hold_to_answer(model, dtype)
    return Student(
        model=model,
        tokenizer=tokenizer,
        template=PlainTemplate(tokenizer),
        device=device,
        dtype=dtype,
    )


def _plain_turns(messages: Sequence[Message], answered: bool) -> list[TemplateTurn]:
    return [TemplateTurn((TemplatePiece(messages[-1].content, False),), None)]
