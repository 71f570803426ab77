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


_SPELLINGS = tuple(
    (re.compile(pattern), short)
    for pattern, short in (
        (r"^(the-)?(gnu-)?|-licen[cs]e(?=-|$)|-version(?=-)", ""),
        (r"-(international|unported|universal|only|or-later)$|\+$", ""),
        (r"^creative-commons-(?=cc)", ""),
        (r"^(creative-commons-)?(public-domain-dedication|zero)|^cc-?(zero|0)", "cc0"),
        (r"^creative-commons-", "cc-"),
        (r"^attribution", "cc-by"),
        (r"(?<=^cc-)attribution", "by"),
        (r"(?<=-)share-?alike", "sa"),
        (r"(?<=-)non-?commercial", "nc"),
        (r"(?<=-)no-?deriv(ative)?s", "nd"),
        (r"^lesser-general-public|^library-general-public", "lgpl"),
        (r"^affero-general-public", "agpl"),
        (r"^general-public", "gpl"),
        (r"^free-documentation", "gfdl"),
        (r"(?<=[a-z])-?v(?=\d)|(?<=0)-v(?=\d)", "-"),
        (r"^llama-(?=\d)", "llama"),
        (r"^(apache|[al]?gpl)(?=\d)", r"\1-"),
        (r"^(apache|[al]?gpl|cc-by(?:-nc)?(?:-sa|-nd)?)-(\d)$", r"\1-\2.0"),
        (r"^cc0$", "cc0-1.0"),
    )
)
"""As people write them, and what stands for it; one after another."""


def short_name(licence: str) -> str:
    """As the hub writes it, where it is one of those with several spellings.

    >>> [short_name(name) for name in ("CC BY-SA 4.0", "Apache License, Version 2.0", "GNU GPL v3")]
    ['cc-by-sa-4.0', 'apache-2.0', 'gpl-3.0']
    """
    name = re.sub(r"[\s_,()]+", "-", licence.strip().casefold()).strip("-")
    for pattern, short in _SPELLINGS:
        name = pattern.sub(short, name)
    return name


def hub_names(licences: Iterable[str]) -> list[str]:
    """What a card's `license:` may say of them, each once; of an empty one `unknown`.

    >>> hub_names(["Apache-2.0", "CC BY 4.0", "", "our own", "Apache 2.0"])
    ['apache-2.0', 'cc-by-4.0', 'other', 'unknown']
    """
    names = {short_name(licence) or UNKNOWN for licence in licences}
    return sorted({name if name in _ON_HUB else "other" for name in names})
