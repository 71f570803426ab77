"""The main text of an HTML page: headings as Markdown, blocks apart, code as it stands.

What surrounds the text is left out: navigation, header, footer, sidebars, forms, cookie notices. It
is known by element, by `role`, and by words of `class` and `id`; where a page marks its `<main>`,
what lies outside is left out too, and where it does not, short lines that are links alone. A part
that has no end, or that holds most of the page, stays (docs/decisions/019).

The scan takes linear time on any input; the standard library's parser takes minutes on 100 kB of
`<a <a <a ...`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details"}
    | {"dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form"}
    | {"frameset", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hgroup", "hr", "html"}
    | {"legend", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "search", "section"}
    | {"summary", "table", "tbody", "tfoot", "thead", "title", "ul"}
)
"""Begin and end on lines of their own; any other element stands inside a sentence."""
_STARTS = {"li": "\n- ", "tr": "\n", "br": "\n", "td": " | ", "th": " | "}
_SILENT = ("script", "style", "template", "noscript", "title", "textarea")
_AROUND = frozenset(
    {"nav", "footer", "aside", "header", "form", "button", "select", "svg", "iframe", "dialog"}
)
_ROLES = frozenset(
    {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alertdialog"}
    | {"menu", "menubar"}
)
_CONTAINERS = frozenset({"div", "section", "ul", "ol", "span", "p", "table"})
_NAMED_AROUND = re.compile(
    r"(?:^|[\s_-])(?:cookies?(?:bar|banner|notice|consent)?|consent|gdpr|breadcrumbs?|side-?bar|"
    r"nav-?bar|nav|navigation|menu|footer|masthead|skip-?links?|no-?print|noprint|social|shar(?:e|ing)|"
    r"related|comments?|newsletter|subscribe|advert(?:isement)?s?|ads?|promo|popup|modal)(?:$|[\s_-])",
    re.IGNORECASE,
)
_TAG_NAME = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9-]*|[!?])")
# A value in quotes may hold ">". Possessive, so that no page is gone through twice for one tag.
_TAG_END = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+'|))*+>""")
_ATTRIBUTE = re.compile(
    r"""\b(role|class|id|hidden)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+)))?"""
)
_MAX_TAG = 2_000
"""Characters of a tag that are looked at for its attributes."""
_OVERLONG_REFERENCE = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
MAX_SHARE_AROUND = 0.5
"""Of a page's text: what holds more than this is the page, however it is named."""
MIN_SHARE_MAIN = 0.2
"""Of a page's text: a `<main>` that holds less is not it."""
MIN_SHARE_LINKS = 0.8
"""Of a line's letters: more in links make it a line of links."""
MAX_MENU_WORDS = 12
_LINK_MARK = re.compile("([\1\2])")


class _Token(NamedTuple):
    """A tag or a text of the page, from `start` to `end`."""

    tag: str
    """The element's name, `/name` where it ends, "" for a text."""
    start: int
    end: int


class _Range(NamedTuple):
    """Tokens `first` up to, not including, `last`."""

    first: int
    last: int


def text_of_html(page: str) -> str:
    """The text with list items, rows and blocks on lines of their own, and `<pre>` in a fence."""
    tokens = list(_tokens(page))
    sizes = _sizes(page, tokens)
    ends = _ends(tokens)
    main = _marked_main(page, tokens, sizes, ends)
    within = main or _Range(0, len(tokens))
    pieces = _pieces(page, tokens, list(_without_surroundings(page, tokens, sizes, ends, within)))
    lines = "".join(pieces).split("\n")
    return _tidy(lines if main is not None else _without_links(lines))


def _pieces(page: str, tokens: Sequence[_Token], kept: Sequence[int]) -> Iterator[str]:
    """What is written for each token that is kept."""
    code: list[str] | None = None
    for token in (tokens[number] for number in kept):
        if token.tag == "pre":
            code = []
        elif token.tag == "/pre" and code is not None:
            yield _fenced("".join(code))
            code = None
        elif code is not None:
            code.append("\n" if token.tag == "br" else "" if token.tag else _text(page, token))
        else:
            yield _break(token.tag) if token.tag else _spaced(_text(page, token))
    if code:
        yield _fenced("".join(code))


def _tokens(page: str) -> Iterator[_Token]:
    """Tags and texts in their order; what a browser does not show is left out."""
    position = 0
    while (start := page.find("<", position)) >= 0:
        if start > position:
            yield _Token("", position, start)
        tag = _TAG_NAME.match(page, start)
        if tag is None:
            yield _Token("", start, start + 1)
            position = start + 1
            continue
        if page.startswith("<!--", start):
            end = page.find("-->", start)
            position = end + 3
        else:
            found = _TAG_END.match(page, tag.end())
            end = position = found.end() if found else -1
        if end < 0:
            return
        name = tag.group(1).lower()
        if name not in ("!", "?"):
            yield _Token(name, start, position)
        if name in _SILENT:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(page, position)
            if closing is None:
                return
            position = closing.start()
    if position < len(page):
        yield _Token("", position, len(page))


def _sizes(page: str, tokens: Sequence[_Token]) -> list[int]:
    """Words of the page before each token, and of all at the end."""
    sizes = [0]
    for token in tokens:
        num_words = 0 if token.tag else len(page[token.start : token.end].split())
        sizes.append(sizes[-1] + num_words)
    return sizes


def _marked_main(
    page: str, tokens: Sequence[_Token], sizes: Sequence[int], ends: Mapping[int, int]
) -> _Range | None:
    """The part that the page marks as its main one, if it holds enough."""
    for number, end in ends.items():
        token = tokens[number]
        is_main = token.tag == "main" or _attributes(page, token)["role"] == "main"
        if is_main and sizes[end] - sizes[number] >= MIN_SHARE_MAIN * sizes[-1]:
            return _Range(number, end)
    return None


def _without_surroundings(
    page: str,
    tokens: Sequence[_Token],
    sizes: Sequence[int],
    ends: Mapping[int, int],
    within: _Range,
) -> Iterator[int]:
    """The numbers of the tokens within a range that are not left out, in their order."""
    number = within.first
    while number < within.last:
        end = ends.get(number, number)
        is_small = sizes[end] - sizes[number] <= MAX_SHARE_AROUND * sizes[-1]
        if end > number and is_small and _is_around(page, tokens[number]):
            number = end
        else:
            yield number
            number += 1


def _ends(tokens: Sequence[_Token]) -> dict[int, int]:
    """Behind which token an element ends, by the number of its own, in the order of the page."""
    open_by_name: dict[str, list[int]] = {}
    ends: dict[int, int] = {}
    for number, token in enumerate(tokens):
        if token.tag.startswith("/"):
            opened = open_by_name.get(token.tag[1:])
            if opened:
                ends[opened.pop()] = number + 1
        elif token.tag in _AROUND or token.tag in _CONTAINERS or token.tag in ("main", "article"):
            open_by_name.setdefault(token.tag, []).append(number)
    return dict(sorted(ends.items()))


def _is_around(page: str, token: _Token) -> bool:
    attributes = _attributes(page, token)
    if token.tag in _AROUND or attributes["role"].lower() in _ROLES:
        return True
    named = f"{attributes['class']} {attributes['id']}"
    return token.tag in _CONTAINERS and _NAMED_AROUND.search(named) is not None


def _attributes(page: str, token: _Token) -> dict[str, str]:
    found = {"role": "", "class": "", "id": ""}
    written = page[token.start + 1 + len(token.tag) : min(token.end, token.start + _MAX_TAG)]
    for match in _ATTRIBUTE.finditer(written):
        found[match.group(1)] = match.group(2) or match.group(3) or match.group(4) or ""
    return found


def _text(page: str, token: _Token) -> str:
    text = page[token.start : token.end]
    text = html.unescape(_OVERLONG_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text))
    return text.translate(_STAND_INS)


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _break(tag: str) -> str:
    """What stands in place of a tag; end tags are written `/name`."""
    if re.fullmatch("h[1-6]", tag):
        return f"\n\n{'#' * int(tag[1])} "
    if tag in _STARTS:
        return _STARTS[tag]
    if tag in ("a", "/a"):
        return _LINK_OPENS if tag == "a" else _LINK_CLOSES
    return "\n\n" if tag.removeprefix("/") in _BLOCKS else ""


# Control characters that stand for something until the text is put together.
_FENCE_LINE, _LINK_OPENS, _LINK_CLOSES = "\0", "\1", "\2"
_STAND_INS = str.maketrans("", "", _FENCE_LINE + _LINK_OPENS + _LINK_CLOSES)


def _fenced(code: str) -> str:
    """Code between fences; its lines are marked so that they are left as they stand."""
    lines = code.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if not lines.strip():
        return ""
    longest = max((len(run) for run in re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    marked = "".join(f"{_FENCE_LINE}{line.rstrip()}\n" for line in lines.split("\n"))
    return f"\n\n{fence}\n{marked}{fence}\n\n"


def _without_links(lines: Sequence[str]) -> list[str]:
    """The lines without short ones that are links alone: menus, tags, teasers. Headings and rows of
    tables stay, and so do all where they hold most of the text."""
    is_inside = False
    dropped: set[int] = set()
    num_linked = num_all = 0
    for number, line in enumerate(lines):
        if line.startswith(_FENCE_LINE):
            continue
        in_links = letters = 0
        for piece in _LINK_MARK.split(line):
            if piece in (_LINK_OPENS, _LINK_CLOSES):
                is_inside = piece == _LINK_OPENS
                continue
            length = sum(map(str.isalnum, piece))
            letters += length
            in_links += length if is_inside else 0
        num_all += letters
        is_menu = letters and in_links >= MIN_SHARE_LINKS * letters
        if is_menu and len(line.split()) <= MAX_MENU_WORDS and line.strip()[:1] not in ("#", "|"):
            dropped.add(number)
            num_linked += letters
    if num_linked > MAX_SHARE_AROUND * num_all:
        return list(lines)
    return [line for number, line in enumerate(lines) if number not in dropped]


def _tidy(lines: Iterable[str]) -> str:
    """No blanks around lines, no two blank lines together; lines of code as they stand."""
    tidied: list[str] = []
    for line in lines:
        is_code = line.startswith(_FENCE_LINE)
        line = line[1:] if is_code else line.translate(_STAND_INS).strip()
        if line or is_code or (tidied and tidied[-1]):
            tidied.append(line)
    return "\n".join(tidied).strip("\n") + "\n"
