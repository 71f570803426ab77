"""Pictures that are written into a text as base64: left out, since no teacher can read them."""

from __future__ import annotations

import re
from typing import NamedTuple

_IN_MARKDOWN = re.compile(r"!\[([^\]\n]{0,1000})\]\(\s*<?data:[^)]*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,1000}\]:[ \t]*<?data:.*$\n?", re.MULTILINE)
_IN_HTML = re.compile(r"<(?:img|source|image)\b[^<>]{0,1000}?\bdata:[^<>]*>", re.IGNORECASE)
_ALT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_BARE = re.compile(r"\bdata:[\w.+-]{1,100}/[\w.+-]{1,100}(?:;[\w=.-]{1,100})*;base64,[\w+/=%-]*")


class WithoutPictures(NamedTuple):
    text: str
    num_pictures: int


def without_pictures(text: str) -> WithoutPictures:
    """The text with each `![alt](data:image/png;base64,...)` as its alt text, and without other
    `data:` URIs.

    >>> without_pictures("A ![red pier](data:image/png;base64,iVBORw0KGgo=) at sea.").text
    'A red pier at sea.'
    """
    if "data:" not in text and "DATA:" not in text:
        return WithoutPictures(text, 0)
    num_pictures = 0
    for pattern in (_IN_MARKDOWN, _REFERENCE, _IN_HTML, _BARE):
        text, num_found = pattern.subn(_alt_text, text)
        num_pictures += num_found
    return WithoutPictures(text, num_pictures)


def _alt_text(found: re.Match[str]) -> str:
    if found.re is _IN_MARKDOWN:
        return found.group(1)
    alt = _ALT.search(found.group()) if found.re is _IN_HTML else None
    return (alt.group(1) or alt.group(2) or "") if alt is not None else ""
