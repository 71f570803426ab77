"""Preference methods by the names that a recipe gives them."""

from __future__ import annotations

from collections.abc import Callable

from feldspar.config import PreferConfig
from feldspar.prefer.methods.best_of_n import BestOfN
from feldspar.prefer.methods.dpo import DPO
from feldspar.prefer.methods.method import PreferenceMethod

__all__ = ["METHODS", "PreferenceMethod", "method_of"]

METHODS: dict[str, Callable[[PreferConfig], PreferenceMethod]] = {
    "best-of-n": lambda config: BestOfN(),
    "dpo": lambda config: DPO(config.dpo_beta),
}
"""Each made of what it needs of the recipe."""


def method_of(config: PreferConfig) -> PreferenceMethod:
    return METHODS[config.method](config)
