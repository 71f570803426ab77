"""Where things are: the same place is an address in the studio and an anchor in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode


class ViewPlace(NamedTuple):
    """A page of a run, and what it is to show."""

    page: str
    shown: Mapping[str, str] = {}


Link = Callable[[ViewPlace], str]


def studio_link(run_name: str) -> Link:
    """Addresses under `/runs/NAME/`."""

    def link(place: ViewPlace) -> str:
        asked = f"?{urlencode(place.shown)}" if place.shown else ""
        return f"/runs/{quote(run_name, safe='')}/{place.page}{asked}"

    return link


def report_link(place: ViewPlace) -> str:
    """Anchors of the one file: a leaf has its own, other places are their sections."""
    if place.page == "leaf":
        return f"#{leaf_anchor(place.shown['path'])}"
    return f"#{place.page}"


def leaf_anchor(path: str) -> str:
    """An id for a leaf: paths hold whatever a folder's name may."""
    return "leaf-" + quote(path, safe="")


def num_pages(num_rows: int, page_size: int) -> int:
    """Of a list that is shown page by page; an empty one has a page too."""
    return max(1, -(-num_rows // page_size))
