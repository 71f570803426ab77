"""Licences by the short names of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNKNOWN = "unknown"
_ON_HUB = frozenset(
    [
        *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "wtfpl"),
        *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
        *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "odbl", "odc-by"),
        *("pddl", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0"),
        *("mpl-2.0", "epl-2.0", "openrail", "bigscience-openrail-m", "creativeml-openrail-m"),
        *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", UNKNOWN, "other"),
    ]
)
"""Those that it takes in a card's `license:`; any other is `other`."""


def short_name(licence: str) -> str:
    """`CC BY-SA 4.0` as `cc-by-sa-4.0`."""
    name = re.sub(r"[\s_]+", "-", licence.strip().casefold())
    return re.sub(r"^creative-commons-|-licen[cs]e$|^the-", "", name)


def hub_names(licences: Iterable[str]) -> list[str]:
    """What a card's `license:` may say of them, each once; of an empty one `unknown`.

    >>> hub_names(["Apache-2.0", "CC BY 4.0", "", "our own", "Apache 2.0"])
    ['apache-2.0', 'cc-by-4.0', 'other', 'unknown']
    """
    names = {short_name(licence) or UNKNOWN for licence in licences}
    return sorted({name if name in _ON_HUB else "other" for name in names})
