"""Under which licence a result may be given on: the union of those of its base and all its data.

This is a first look, not legal advice: it knows the common licences by their short names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from feldspar.publish.base_facts import front_matter
from feldspar.text.licence_names import UNKNOWN, short_name

_PERMISSIVE = re.compile(
    r"(apache|mit|bsd|cc0|cc-by(-\d|$)|cdla-permissive|unlicense|public-domain|pddl|odc-by|isc)"
)
_SHARE_ALIKE = re.compile(r"(cc-by-sa|cc-by-nc-sa|gpl|lgpl|agpl|gfdl|odbl|cdla-sharing)")


class Licence(NamedTuple):
    """A short name as the hub writes it (`apache-2.0`, `other`), and what speaks against it."""

    name: str
    warnings: list[str]


def find_licence(stated: str, base: str, of_data: Iterable[str]) -> Licence:
    """`stated` by the recipe; else the one, of the base's and those of all data, under which all of
    these may be given on; else the base's, with what speaks against it. Empty names are licences
    that nobody stated."""
    parts = sorted({short_name(licence) for licence in of_data if licence})
    name = short_name(stated) or _union(short_name(base), parts)
    warnings = []
    if name == UNKNOWN:
        warnings.append("the base states no licence; set publish.licence")
    if base and not _may_become(short_name(base), name):
        warnings.append(f"the base is under {short_name(base)}, the result would be under {name}")
    for other in parts:
        if not _may_become(other, name):
            warnings.append(f"data under {other} does not go with a result under {name}")
    return Licence(name, warnings)


def _union(base: str, of_data: Sequence[str]) -> str:
    """The first of the base's licence and the data's that all others may become part of."""
    if not base:
        return UNKNOWN
    parts = [base, *of_data]
    return next((n for n in parts if all(_may_become(part, n) for part in parts)), base)


def licence_of_base(base: str) -> str:
    """What the base's own README says of its licence; empty where it says nothing."""
    said = front_matter(base)
    licence = said.get("license")
    if licence == "other":
        licence = said.get("license_name", licence)
    names = licence if isinstance(licence, list) else [licence]
    return " and ".join(name for name in names if isinstance(name, str))


def _may_become(part: str, whole: str) -> bool:
    """Whether what is under `part` may be part of something under `whole`."""
    if "-nd" in part:
        return False
    if part == whole:
        return True
    if "-nc" in part and "-nc" not in whole:
        return False
    return bool(_PERMISSIVE.match(part)) and not _SHARE_ALIKE.match(part)
