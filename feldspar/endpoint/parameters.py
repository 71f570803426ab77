"""Which parameters of a call a server is sent, and under what names.

Servers differ: some refuse a `seed`, some want `max_completion_tokens`, some take one temperature
alone. A recipe may say so by hand; else it is found by what they refuse, once, and reported.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence

from feldspar.endpoint.calls import Json

log = logging.getLogger(__name__)

PARAMETERS = ("seed", "max_tokens", "temperature")
"""Those that may be left out or renamed. In this order they are tried where a server does not say
which one it refuses."""
_OTHER_NAMES = {"max_tokens": "max_completion_tokens"}
_DECIDES = ("temperature", "max_tokens")
"""Without one of these an answer is another one; without a seed it is another draw of the same."""


class Parameters:
    """The names that parameters go by, and what is sent besides."""

    def __init__(self, by_hand: Mapping[str, object] | None = None) -> None:
        given = dict(by_hand or {})
        self._names: dict[str, str | None] = {name: name for name in PARAMETERS}
        for name in PARAMETERS:
            wanted = given.pop(name, True)
            self._names[name] = wanted if isinstance(wanted, str) else (name if wanted else None)
        self._extra: Json = given
        self.version = 0
        """Counts the changes."""

    @property
    def key(self) -> Json:
        """What of it decides an answer: part of what answers are known by. Empty as a rule."""
        left_out = {name: False for name in _DECIDES if self._names[name] is None}
        return {**self._extra, **left_out}

    def apply(self, body: Json) -> Json:
        """The body as this server takes it."""
        if not self._extra and all(name == sent for name, sent in self._names.items()):
            return body
        changed = {}
        for name, value in body.items():
            sent = self._names.get(name, name)
            if sent is not None:
                changed[sent] = value
        return {**changed, **self._extra}

    def give_up(self, sent: str) -> str:
        """Rename or leave out what was sent under a name; gives the parameter, "" for none."""
        for name, now in self._names.items():
            if now == sent:
                other = _OTHER_NAMES.get(name)
                self._names[name] = other if now == name and other else None
                self.version += 1
                return name
        return ""

    def say(self, name: str, reason: str, place: str) -> None:
        """Warn of a change, with what to write into the recipe."""
        now = self._names[name]
        if now is None:
            change, by_hand = "it is left out from now on", "false"
        else:
            change, by_hand = f"`{now}` is sent in its place from now on", f'"{now}"'
        log.warning(
            "the server %s does not take `%s` (%s); %s; with `parameters.%s = %s` in its table of "
            "the recipe it is never sent",
            place, name, reason, change, name, by_hand,
        )  # fmt: skip

    def without(self, names: Sequence[str]) -> Parameters:
        """A copy that has given up some of them: to be tried, then adopted or forgotten."""
        other = copy.copy(self)
        other._names = dict(self._names)
        for name in names:
            if (sent := other._names[name]) is not None:
                other.give_up(sent)
        return other

    def adopt(self, other: Parameters) -> None:
        self._names = other._names
        self.version += 1
