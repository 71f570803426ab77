"""Under which licence a result may be given on: that of its base, unless the data stands against.

This is a first look, not legal advice: it knows the common licences by their short names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
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
    """`stated` by the recipe, else that of the `base`, else `unknown`; checked against both and the
    licences of all data. Empty names are licences that nobody stated."""
    name = short_name(stated or base) or UNKNOWN
    warnings = []
    if name == UNKNOWN:
        warnings.append("the base states no licence; set publish.licence")
    if stated and base and not _may_become(short_name(base), name):
        warnings.append(f"the base is under {short_name(base)}, the result would be under {name}")
    for other in sorted({short_name(licence) for licence in of_data if licence}):
        if not _may_become(other, name):
            warnings.append(f"data under {other} does not go with a result under {name}")
    return Licence(name, warnings)


def licence_of_base(base: str) -> str:
    """What the base's own README says of its licence; empty where it says nothing."""
    licence = front_matter(Path(base)).get("license")
    return licence if isinstance(licence, str) else ""


def _may_become(part: str, whole: str) -> bool:
    """Whether what is under `part` may be part of something under `whole`."""
    if part == whole:
        return True
    if ("-nc" in part and "-nc" not in whole) or "-nd" in part:
        return False
    return bool(_PERMISSIVE.match(part)) and not _SHARE_ALIKE.match(part)
