"""The tokenizer of a GGUF file, made as llama.cpp reads it, with what the metadata says of special
tokens and of the chat template.

A vocabulary of bytes (`tokenizer.ggml.model = "gpt2"`) is made here, since how text is split before
merging is named by `tokenizer.ggml.pre` alone; one of SentencePiece is made by transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from feldspar.errors import TrainingError
from feldspar.student.bases.gguf_header import GgufHeader

_KEY = "tokenizer.ggml."
_BYTES, _SENTENCEPIECE = "gpt2", "llama"
_CONTROL, _USER_DEFINED = 3, 4
"""Kinds of tokens, by llama.cpp's `llama_token_type`."""
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in SentencePiece's pieces."""

# The patterns are those of the models' published tokenizer.json files.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class _Splitting(NamedTuple):
    """How text is cut before its bytes are merged."""

    pattern: str | None = None
    """None: GPT-2's own."""
    single_digits: bool = False
    whole_words: bool = False
    """Whether a piece that is a token needs no merges."""
    begins_text: bool = False
    """Whether texts begin with the begin token where the file does not say."""


_SPLITTINGS = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "granite-docling"), _Splitting()),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        _Splitting(single_digits=True),
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _Splitting(_QWEN2)),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"),
        _Splitting(_LLAMA3, whole_words=True, begins_text=True),
    ),
}
"""By `tokenizer.ggml.pre`."""


def check_words(header: GgufHeader) -> None:
    """Raise TrainingError, with the cure, where the tokenizer cannot be made."""
    kind, pre = header.text(f"{_KEY}model"), header.text(f"{_KEY}pre")
    if kind not in (_BYTES, _SENTENCEPIECE):
        raise _refused(header, f"its tokenizer is of the kind {kind!r}")
    if kind == _BYTES and pre not in _SPLITTINGS:
        raise _refused(header, f"how its tokenizer splits text is {pre!r}, which is not known")
    if header.metadata.get(f"{_KEY}add_eos_token") is True:
        raise _refused(header, "its tokenizer puts an end token after every text")
    begins_bare = header.metadata.get(f"{_KEY}add_space_prefix") is False
    if kind == _SENTENCEPIECE and begins_bare and header.architecture != "gemma3":
        raise _refused(header, "its tokenizer puts no space before a text")
    if header.number(f"{_KEY}eos_token_id") is None:
        raise _refused(header, "it names no end token")
    tokens = header.texts(f"{_KEY}tokens")
    if not tokens:
        raise _refused(header, "it has no tokens")
    for name in ("bos", "eos", "unknown", "padding"):
        number = header.number(f"{_KEY}{name}_token_id")
        if number is not None and number >= len(tokens):
            raise _refused(header, f"its {name} token {number} is none of {len(tokens)}")


def make_words(header: GgufHeader) -> Any:
    """A transformers tokenizer (PreTrainedTokenizerFast). Raises TrainingError where it cannot be
    made, or would not be the file's."""
    check_words(header)
    is_bytes = header.text(f"{_KEY}model") == _BYTES
    backend = _byte_tokenizer(header) if is_bytes else _pieces_tokenizer(header)
    special = {
        name: _special_token(header, key)
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
    }
    if _begins_texts(header) and special["bos_token"] is not None:
        backend.post_processor = _with_begin(backend, special["bos_token"])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=header.number(f"{header.architecture}.context_length"),
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token is not None},
    )
    made.chat_template = header.text("tokenizer.chat_template")
    _check_vocabulary(header, made)
    return made


def _refused(header: GgufHeader, what: str) -> TrainingError:
    return TrainingError(f"{header.path}: {what}; take the model's Hugging Face folder instead")


def _byte_tokenizer(header: GgufHeader) -> Tokenizer:
    splitting = _SPLITTINGS[header.text(f"{_KEY}pre") or ""]
    merges = [tuple(merge.split(" ")) for merge in header.texts(f"{_KEY}merges")]
    tokens = header.texts(f"{_KEY}tokens")
    try:
        model = models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[(merge[0], merge[-1]) for merge in merges],
            ignore_merges=splitting.whole_words,
        )
    except Exception as error:  # tokenizers raises plain Exceptions
        raise _refused(header, f"its merges do not fit its tokens ({error})") from error
    backend = Tokenizer(model)
    backend.pre_tokenizer = _pre_tokenizer(splitting)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    _add_special(header, backend)
    return backend


def _pre_tokenizer(splitting: _Splitting) -> Any:
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if splitting.pattern is not None:
        cut = pre_tokenizers.Split(Regex(splitting.pattern), behavior="isolated")
        return pre_tokenizers.Sequence([cut, bytes_only])
    as_gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if splitting.single_digits:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), as_gpt2])
    return as_gpt2


def _pieces_tokenizer(header: GgufHeader) -> Tokenizer:
    try:
        made = AutoTokenizer.from_pretrained(
            str(header.path.parent), gguf_file=header.path.name, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise _refused(header, f"its tokenizer cannot be made ({reason})") from error
    backend: Tokenizer = made.backend_tokenizer
    _add_special(header, backend)
    return backend


def _add_special(header: GgufHeader, backend: Tokenizer) -> None:
    """Control tokens are special; those that users defined are never cut."""
    kinds = header.metadata.get(f"{_KEY}token_type")
    assert isinstance(kinds, list), kinds
    tokens = _spelled(header)
    for kind, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        of_kind = [token for token, k in zip(tokens, kinds, strict=True) if k == kind]
        added = [AddedToken(token, special=is_special, normalized=False) for token in of_kind]
        if is_special:
            backend.add_special_tokens(added)
        else:
            backend.add_tokens(added)


def _special_token(header: GgufHeader, key: str) -> str | None:
    number = header.number(f"{_KEY}{key}_token_id")
    return None if number is None else _spelled(header)[number]


def _spelled(header: GgufHeader) -> Sequence[str]:
    """Tokens as the tokenizer spells them: Gemma's files have runs of spaces as they are."""
    tokens = header.texts(f"{_KEY}tokens")
    if header.text(f"{_KEY}model") == _BYTES:
        return tokens
    return [_SPACE * len(t) if t and not t.strip(" ") else t for t in tokens]


def _begins_texts(header: GgufHeader) -> bool:
    stated = header.metadata.get(f"{_KEY}add_bos_token")
    if isinstance(stated, bool):
        return stated
    if header.text(f"{_KEY}model") == _SENTENCEPIECE:
        return True
    return _SPLITTINGS[header.text(f"{_KEY}pre") or ""].begins_text


def _with_begin(backend: Tokenizer, token: str) -> Any:
    number = backend.token_to_id(token)
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, number)]
    )


def _check_vocabulary(header: GgufHeader, made: Any) -> None:
    """Every number must mean the token that the file has there."""
    tokens = _spelled(header)
    found = made.convert_ids_to_tokens(list(range(len(tokens))))
    if len(made) != len(tokens) or list(found) != list(tokens):
        wrong = next((i for i, (a, b) in enumerate(zip(found, tokens, strict=True)) if a != b), 0)
        raise _refused(
            header,
            f"its tokenizer cannot be made: {len(made)} tokens for {len(tokens)}, and number "
            f"{wrong} is {found[wrong]!r} in place of {tokens[wrong]!r}",
        )
