"""What a handler gives to the page around it."""

from typing import NamedTuple

from markupsafe import Markup


class ShownPage(NamedTuple):
    """A page without what is around it."""

    title: str
    body: Markup
