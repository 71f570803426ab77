"""Secrets and personal data are found by what only they look like."""

from __future__ import annotations

import time

import pytest

from feldspar.text.sensitive import find_sensitive

# Put together here, so that nobody's scanner takes this file for a leak.
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA" + "b3Vy9zQ2" * 8 + "\n"
SECRETS = {
    "a private key": KEY,
    "an AWS access key": "AKIA" + "Q3EGRZXW5MTV7KJD",
    "a GitHub token": "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "a GitLab token": "glpat" + "-a1B2c3D4e5F6g7H8i9J0",
    "a Slack token": "xoxb" + "-1234567890-abcdefghijklmnop",
    "a Stripe key": "sk_" + "live_a1B2c3D4e5F6g7H8i9J0k1L2",
    "an OpenAI or Anthropic key": "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "a Google API key": "AIza" + "SyD4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T",
    "a Hugging Face token": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "a password in an address": "postgres://ann:" + "h7Gq2mZp9@db.firm.org/x",
}
PERSONAL = {
    "an e-mail address": ("ann.lee+x@firm.co.uk", "Write to <ann@firm.org>."),
    "a telephone number": (
        "+49 30 901820",
        "+44 (0)20 7946 0958",
        "(801) 596-1887",
        "801-596-1887",
    ),
    "a card number": ("4539 1488 0343 6467", "4539148803436467", "3782 822463 10005"),
    "an account number (IBAN)": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"),
}
HARMLESS = (
    "ann@example.com, git@github.com:owner/name, noreply@firm.org, @ann, a@b",
    "Between 1990-1999 and 2001-2009 it sold 1 234 567 890 copies; ISBN 978-3-16-148410-0.",
    "Pi is 3.14159265358979323846, and (202) 555-0143 is a number of films. 10.0.0.1 2024-01-15",
    "4539 1488 0343 6468 fails its check digit; so does DE89 3704 0044 0532 0130 01.",
    "AKIAIOSFODNN7EXAMPLE, sk-your-key-goes-here-your-key-goes-here, ghp_" + "x" * 36,
    "https://user:password@example.com/, task-based-learning-of-many-words-in-one-long-name-1",
    "A file that begins with -----BEGIN PRIVATE KEY----- holds a key.",
)


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_where_it_stands(what: str) -> None:
    text = f"One.\nTwo: {SECRETS[what]}\nthree."
    (found,) = (one for one in find_sensitive(text) if one.kind == "secret")
    assert (found.kind, found.what, found.line) == ("secret", what, 2)
    assert len(found.shown) == 5


@pytest.mark.parametrize("what", PERSONAL)
def test_personal_data_is_found(what: str) -> None:
    for text in PERSONAL[what]:
        (found,) = find_sensitive(f"It is {text}, they say.")
        assert (found.kind, found.what) == ("personal", what)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_is_not_told(text: str) -> None:
    assert list(find_sensitive(text)) == []


@pytest.mark.parametrize(
    "piece", ["a@", "a.", "+1 ", "4-", "AA00 ", "sk-", "eyJaaaaaaaaaa.", "://a:b", "xox", "a@b.cd "]
)
def test_hostile_texts_take_no_longer_than_they_are_long(piece: str) -> None:
    start = time.process_time()
    num_found = sum(1 for _ in find_sensitive(piece * (500_000 // len(piece))))
    assert num_found <= 200
    assert time.process_time() - start < 5
