"""What texts have in common. Pure functions, and one index."""

from feldspar.text.language import LANGUAGE_NAMES, language_of
from feldspar.text.printable import on_one_line, printable
from feldspar.text.similarity import Match, SimilarTexts, rouge_l
from feldspar.text.words import (
    ngrams,
    normalise,
    num_words_said,
    numbers_and_names,
    run_length,
    searchable,
    split_words,
)

__all__ = [
    "LANGUAGE_NAMES",
    "Match",
    "SimilarTexts",
    "language_of",
    "ngrams",
    "normalise",
    "num_words_said",
    "numbers_and_names",
    "on_one_line",
    "printable",
    "rouge_l",
    "run_length",
    "searchable",
    "split_words",
]
