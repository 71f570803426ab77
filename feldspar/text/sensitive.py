"""Secrets and personal data in a text: what should not be sent to somebody else's machine.

Secrets are known by the prefixes that their issuers publish, so few other texts look like them;
card and account numbers by their check digits. Names and addresses are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

_SECRETS: dict[str, re.Pattern[str]] = {
    "a private key": re.compile(
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        r"(?=(?:\s{1,4}[\w-]{1,40}: [^\n]{0,200}){0,4}\s{1,8}[A-Za-z0-9+/=]{40})"
    ),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{82})\b"),
    "a GitLab token": re.compile(r"\bglpat-[\w-]{20}"),
    "a Slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{20,250}"),
    "a Slack webhook": re.compile(r"\bhooks\.slack\.com/services/T\w{8,12}/B\w{8,12}/\w{20,30}"),
    "a Stripe key": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{24,200}"),
    "an OpenAI or Anthropic key": re.compile(
        r"\bsk-(?:(?:ant|proj|svcacct|admin|or)-[\w-]{32,250}|[A-Za-z0-9]{40,250})"
    ),
    "a Google API key": re.compile(r"\bAIza[\w-]{35}"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{34}\b"),
    "an npm token": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
    "a PyPI token": re.compile(r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,250}"),
    "a SendGrid key": re.compile(r"\bSG\.[\w-]{22}\.[\w-]{43}"),
    "a signed token (JWT)": re.compile(r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,1000}"),
    "a password in an address": re.compile(r"://[\w.-]{1,64}:[^\s/:@<>{}$*]{6,64}@\w"),
}
# One of these stands in each, and a plain search is a hundred times faster than the patterns.
_HINTS: dict[str, tuple[str, ...]] = {
    "a private key": ("PRIVATE KEY",),
    "an AWS access key": ("AKIA", "ASIA"),
    "a GitHub token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    "a GitLab token": ("glpat-",),
    "a Slack token": ("xox",),
    "a Slack webhook": ("hooks.slack.com",),
    "a Stripe key": ("k_live_",),
    "an OpenAI or Anthropic key": ("sk-",),
    "a Google API key": ("AIza",),
    "a Hugging Face token": ("hf_",),
    "an npm token": ("npm_",),
    "a PyPI token": ("pypi-",),
    "a SendGrid key": ("SG.",),
    "a signed token (JWT)": ("eyJ",),
    "a password in an address": ("://",),
}
_PLACEHOLDER = re.compile(r"example|sample|dummy|placeholder|your|xxxx|passw|secret|\.\.\.", re.I)
MIN_CHARACTERS = 8
"""Different ones in a secret: `AKIA0000000000000000` is none."""

_LOCAL_PART = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}\Z")
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b")
_NOBODY = re.compile(
    r"@(?:.{0,64}\.)?(?:example\.\w{2,3}|example|invalid|test|localhost|domain\.com)$|^git@|^no-?reply@",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}"
    r"|\([2-9]\d{2}\) ?[2-9]\d{2}-\d{4}|[2-9]\d{2}-[2-9]\d{2}-\d{4})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])(?:3[47]|4\d|5[1-5]|2[2-7]|6[05])(?:[ -]?\d){13,14}(?![\w-])")
_ACCOUNT = re.compile(
    r"[A-Z]{2}\d{2}(?<!\w[A-Z]{2}\d{2})(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"
)

_NUMBER = re.compile(r"[+(\d][\d ().-]{7,40}")
"""Where a telephone or card number may be."""
MAX_LOCAL_CHARACTERS = 64
MAX_PLACES = 200
"""Of one kind in one text: a list of addresses needs no more to be seen as one."""

Kind = Literal["secret", "personal"]


class Sensitive(NamedTuple):
    """One place of a text that holds a secret or personal data."""

    kind: Kind
    what: str
    """`a GitHub token`, `an e-mail address`."""
    line: int
    """Counted from 1."""
    shown: str
    """Its first characters: enough to find it, not to use it."""


def find_sensitive(text: str) -> Iterator[Sensitive]:
    """Secrets and personal data, kind by kind, each kind in the order of the text.

    >>> [found.what for found in find_sensitive("Write to ann@firm.org.")]
    ['an e-mail address']
    """
    for what, pattern in _SECRETS.items():
        if any(hint in text for hint in _HINTS[what]):
            secrets = (f for f in _matches(text, pattern) if _is_secret(what, f.text))
            for found in islice(secrets, MAX_PLACES):
                yield _sensitive("secret", what, text, found)
    for what, is_one, candidates in (
        ("an e-mail address", _is_somebodys, _emails(text)),
        ("a telephone number", _is_telephone, _numbers(text, _PHONE)),
        ("a card number", _is_card, _numbers(text, _CARD)),
        ("an account number (IBAN)", _is_account, _matches(text, _ACCOUNT)),
    ):
        for found in islice((f for f in candidates if is_one(f.text)), MAX_PLACES):
            yield _sensitive("personal", what, text, found)


class _Found(NamedTuple):
    start: int
    text: str


def _matches(text: str, pattern: re.Pattern[str]) -> Iterator[_Found]:
    return (_Found(match.start(), match.group()) for match in pattern.finditer(text))


def _emails(text: str) -> Iterator[_Found]:
    at = -1
    while (at := text.find("@", at + 1)) >= 0:
        domain = _DOMAIN.match(text, at)
        start = max(0, at - MAX_LOCAL_CHARACTERS - 1)
        local = _LOCAL_PART.search(text[start:at]) if domain is not None else None
        if local is not None and domain is not None:
            yield _Found(start + local.start(), local.group() + domain.group())


def _numbers(text: str, pattern: re.Pattern[str]) -> Iterator[_Found]:
    for stretch in _NUMBER.finditer(text):
        # One character more, so that a number that goes on in a word is none.
        for match in pattern.finditer(text, stretch.start(), stretch.end() + 1):
            yield _Found(match.start(), match.group())


def _sensitive(kind: Kind, what: str, text: str, found: _Found) -> Sensitive:
    line = text.count("\n", 0, found.start) + 1
    return Sensitive(kind, what, line, f"{found.text[:4]}\N{HORIZONTAL ELLIPSIS}")


def _is_secret(what: str, found: str) -> bool:
    if what == "a private key":
        return True
    return not _PLACEHOLDER.search(found) and len(set(found)) >= MIN_CHARACTERS


def _is_somebodys(address: str) -> bool:
    return not _NOBODY.search(address)


def _is_telephone(number: str) -> bool:
    digits = _digits(number)
    # 555-01xx is kept free for films and examples.
    is_fictional = len(digits) >= 10 and digits[-7:-2] == "55501"
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2 and not is_fictional


def _is_card(number: str) -> bool:
    """By Luhn's check digit."""
    digits = [int(digit) for digit in reversed(_digits(number))]
    num_digits = 15 if digits[-1] == 3 else 16
    if len(digits) != num_digits or len(set(digits)) < 3:
        return False
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0


def _is_account(number: str) -> bool:
    """By the check digits of ISO 13616."""
    plain = number.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isdigit())
