"""Talking to a run's result: history, one answer at a time."""

from __future__ import annotations

from pathlib import Path

from feldspar.records import Message
from feldspar.runs import read_recipe_of, result_of
from feldspar.student.model import load_student
from feldspar.student.sample import sample_answers


class Conversationalist:
    """A loaded result with what was said so far."""

    def __init__(self, run_path: Path, max_tokens: int, temperature: float) -> None:
        config = read_recipe_of(run_path).student
        checkpoint = result_of(run_path)
        self.name = f"{run_path.name}, {checkpoint.phase}, step {checkpoint.step}"
        self.max_tokens = max_tokens
        self.temperature = temperature
        self._student = load_student(checkpoint.path, config)
        self._history: list[Message] = []

    def forget(self) -> None:
        """Begin a new conversation."""
        self._history.clear()

    def answer(self, text: str) -> str:
        """Say `text`, and give the answer; both are remembered."""
        self._history.append(Message(role="user", content=text))
        [[sampled]] = sample_answers(
            self._student,
            [self._history],
            keys=[f"chat-{len(self._history)}"],
            temperature=self.temperature,
            max_new_tokens=self.max_tokens,
            seed=0,
        )
        self._history.append(Message(role="assistant", content=sampled.text))
        return sampled.text
