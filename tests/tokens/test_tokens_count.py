"""Lengths of texts."""

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from feldspar.errors import RecipeError
from feldspar.tokens.count import TokenCounter

GRANITE = Path(__file__).parents[2].parent / "shared" / "data" / "tokenizers" / "granite-7b-lab"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocabulary = {word: i for i, word in enumerate(["?", "a", "b", "<", "end", ">"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_words_are_counted_where_no_tokenizer_is_named():
    assert TokenCounter().counts(["a b c", "", " one\ntwo "]) == [3, 0, 2]


def test_tokens_are_counted_whole_and_special_ones_are_text(folder):
    counter = TokenCounter(folder)
    assert counter.counts(["a b a b", "", "a<end>"]) == [4, 0, 4]
    assert TokenCounter(str(folder / "tokenizer.json"))("a b") == 2


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"tokenizer\.json"):
        TokenCounter(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RecipeError, match="not a tokenizer"):
        TokenCounter(tmp_path)


@pytest.mark.skipif(not GRANITE.is_dir(), reason="no shared tokenizers beside the repository")
def test_a_real_tokenizer():
    assert TokenCounter(GRANITE)("The phoenix is a constellation.") == 10


def test_the_key_is_the_tokenizers_content(folder):
    assert TokenCounter(folder).key == TokenCounter(folder / "tokenizer.json").key
    assert TokenCounter(folder).key != TokenCounter().key
