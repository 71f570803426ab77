"""Lengths of texts in tokens, without torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feldspar.errors import RecipeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_EAST_ASIAN = r"\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Scripts without spaces count by the character, and long runs by 32, so no chunk is boundless.
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\s{_EAST_ASIAN}]{{1,32}}")
CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English, where no tokenizer is at hand; other languages take more tokens."""
_UNSPACED = re.compile(f"[{_EAST_ASIAN}]")


def guess_tokens(text: str) -> int:
    """Tokens of a text by the rule of thumb, rounded up; an East Asian character is one."""
    num_unspaced = 0 if text.isascii() else len(_UNSPACED.findall(text))
    return num_unspaced - (num_unspaced - len(text)) // CHARACTERS_PER_TOKEN


def count_words(text: str) -> int:
    """Words, counting each East Asian character and each 32 characters of a longer run as one."""
    return sum(1 for _ in _WORD.finditer(text))


class TokenCounter:
    """Counts the tokens of a text, or its words where no tokenizer is named.

    `path`: a tokenizer.json, or a model directory that holds one. Raises RecipeError.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._tokenizer = None if path is None else _read(Path(path))
        content = self._tokenizer.to_str() if self._tokenizer else f"words {_WORD.pattern}"
        self.key: str = hashlib.sha256(content.encode()).hexdigest()
        """Content key of the tokenizer: part of the key of every step it is handed to."""

    def __call__(self, text: str) -> int:
        return self.counts([text])[0]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """The length of each text. Special tokens are not added, and not looked for in texts."""
        if self._tokenizer is None:
            return [count_words(text) for text in texts]
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(e.ids) for e in encoded]

    def cannot_write(self, texts: Sequence[str]) -> list[str]:
        """Those texts that do not come back from their tokens, case and spacing aside."""
        if self._tokenizer is None:
            return []
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        back = self._tokenizer.decode_batch([e.ids for e in encoded])
        return [a for a, b in zip(texts, back, strict=True) if _letters(a) != _letters(b)]


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()


def _read(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise RecipeError(f"{path}: no tokenizer.json; name a folder that holds one")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise RecipeError(f"{file}: not a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer
