"""The special tokens of the lab template: the one place that spells them. Imports nothing heavy.

    <|system|>\n{sys}\n<|user|>\n{inputs}\n<|assistant|>\n{answer}<|endoftext|>

A template with other tokens is another `TemplateTokens`, and a layout of turns in layout.py.
"""

from __future__ import annotations

from typing import NamedTuple

from feldspar.records import Role


class TemplateTokens(NamedTuple):
    """One token for each role, one that ends an answer, and one for padding."""

    system: str
    user: str
    assistant: str
    stop: str
    pad: str
    tokens_per_turn: int
    """Special tokens and line ends of a question and its answer: for planning."""

    @property
    def roles(self) -> tuple[str, str, str]:
        return self.system, self.user, self.assistant

    @property
    def trained(self) -> tuple[str, ...]:
        """Those whose embeddings training needs: padding is never looked at."""
        return (*self.roles, self.stop)

    def of_role(self, role: Role) -> str:
        """What opens a turn of this role."""
        return {"system": self.system, "user": self.user, "assistant": self.assistant}[role]

    def role_of(self, token: str) -> Role:
        """The role whose turns this token opens."""
        roles: tuple[Role, ...] = ("system", "user", "assistant")
        return roles[self.roles.index(token)]


LAB = TemplateTokens(
    system="<|system|>",
    user="<|user|>",
    assistant="<|assistant|>",
    stop="<|endoftext|>",
    pad="<|pad|>",
    tokens_per_turn=14,
)
"""As the model cards of Merlinite-7b and Labradorite-13b write it."""
