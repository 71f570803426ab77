"""The list of models that a server has, which may be missing, paged, or odd.

Where it is no help, the model that the recipe names is trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, NamedTuple

from feldspar.endpoint.faults import Fault
from feldspar.endpoint.protocol import field
from feldspar.endpoint.transport import Transport, is_web_page

log = logging.getLogger(__name__)

MOST_PAGES = 50
_FEW = 10
"""Names that an error shows."""


class ListedModel(NamedTuple):
    """What a server says of a model, where it says it."""

    id: str
    revision: str = ""
    root: str = ""
    """vLLM: the folder, whatever the model is called."""
    max_model_len: int | None = None
    """Longest prompt with its answer, in tokens."""


class Listing(NamedTuple):
    """Cards by id. `whole` where it is known that there is no other model."""

    cards: dict[str, ListedModel]
    whole: bool
    fault: str = ""
    """Why there is no list."""


async def list_models(
    transport: Transport, url: str, headers: Mapping[str, str]
) -> Listing | Fault:
    """All models behind a URL. A fault where nobody answers, where the key is not taken, or where a
    web page answers."""
    cards: dict[str, ListedModel] = {}
    after = ""
    for _ in range(MOST_PAGES):
        reply = await transport.get(f"{url}/models{after}", headers)
        if isinstance(reply, Fault):
            is_there = reply.status and reply.status != 408 and reply.status < 500
            if is_web_page(reply):
                return Fault("stop", "it answers text/html, a web page", why="address")
            if reply.why in ("key", "redirect") or not is_there or reply.status in (425, 429):
                return reply
            return Listing(cards, False, reply.reason)
        rows = reply.body if isinstance(reply.body, list) else field(reply.body, "data")
        if not isinstance(rows, list):
            return Listing(cards, False, "its /models is no list")
        before = len(cards)
        cards.update((card.id, card) for row in rows if (card := _read_card(row)) is not None)
        last = field(reply.body, "last_id")
        if field(reply.body, "has_more") is not True or len(cards) == before:
            return Listing(cards, field(reply.body, "has_more") is not True)
        # Anthropic's pages go by `after_id`, OpenAI's by `after`.
        name = last if isinstance(last, str) else next(reversed(cards))
        after = f"?after_id={name}&after={name}&limit=100"
    return Listing(cards, False)


class Found(NamedTuple):
    """Which model to ask for; or, where there is none, what to say."""

    card: ListedModel | None
    problem: Literal["", "none", "missing", "unlisted"] = ""
    there: str = ""
    """Names that are listed, or why there is no list."""


def choose_model(listing: Listing, wanted: str | None, place: str) -> Found:
    """The model that is wanted, by whatever form of its name is listed; the first where none is.

    A name that no list can vouch for is trusted, with a warning.
    """
    cards = listing.cards
    there = ", ".join(list(cards)[:_FEW])
    if wanted is None:
        first = next(iter(cards.values()), None)
        if first is not None:
            return Found(first)
        return Found(None, "unlisted" if listing.fault else "none", listing.fault)
    if wanted in cards:
        return Found(cards[wanted])
    alike = [card for card in cards.values() if _is_alike(card.id, wanted)]
    if listing.whole and cards and not alike:
        return Found(None, "missing", there)
    why = listing.fault or f"it lists {there or 'no model'}"
    log.warning("the server %s does not list %s (%s); it is asked all the same", place, wanted, why)
    return Found(ListedModel(wanted))


def _is_alike(listed: str, wanted: str) -> bool:
    """`models/m` for `m`, `m:latest`, and `m-2024-08-06`: dated and tagged forms of one name."""
    short, long = sorted((listed.removeprefix("models/"), wanted.removeprefix("models/")), key=len)
    rest = long.removeprefix(short)
    return short == long or (long.startswith(short) and (rest[0] == ":" or rest[:2] == "-2"))


def _read_card(row: object) -> ListedModel | None:
    name = row if isinstance(row, str) else field(row, "id")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name:
        return None
    revision, root = field(row, "revision"), field(row, "root")
    longest = field(row, "max_model_len")
    return ListedModel(
        name,
        revision if isinstance(revision, str) else "",
        root if isinstance(root, str) else "",
        longest if isinstance(longest, int) and longest > 0 else None,
    )
