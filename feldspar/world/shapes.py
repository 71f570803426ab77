"""Tiny untrained models in the shapes of real families: for trying a whole recipe, not for scores.

Architecture, kind of tokenizer and special tokens are a family's; sizes are not. Like real bases
they know no roles and no stop token: a run adds what its template needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from feldspar.files import whole_folder
from feldspar.world.corpus import tokenizer_texts

VOCABULARY = 600
"""Pieces that a tokenizer learns, beside bytes and special tokens."""
INSTRUCT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""In the manner of Mistral's instruct models, which take no system turn."""


def make_tiny(name: str, seed: int, path: Path) -> None:
    """Write the model called `name`, a key of `TINY`, whole; what is there is left as it is."""
    if path.exists():
        return
    family, make_tokenizer, sizes = TINY[name]
    tokenizer = make_tokenizer()
    if name.endswith("-instruct"):
        tokenizer.chat_template = INSTRUCT_TEMPLATE
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + len(name))
        model = AutoModelForCausalLM.from_config(config)
    transformers_logging.disable_progress_bar()
    with whole_folder(path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's and Mistral's: pieces with a mark for spaces, bytes for the rest, <s> first."""
    mark = "\u2581"
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(replacement=mark, prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False)
    learned.train_from_iterator(tokenizer_texts(), trainer)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    vocabulary = {piece: number for number, piece in enumerate([*special, *pieces])}
    merges = _merges(learned)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(mark), normalizers.Replace(" ", mark)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(mark, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return _wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bytes_tokenizer(end: str, *special: str) -> PreTrainedTokenizerFast:
    """As Granite 3's and Qwen's: merged bytes, and nothing put before a text."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[end, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts(), trainer)
    return _wrapped(tokenizer, eos_token=end)


def _wrapped(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    told = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(first, second) for first, second in told]


_granite = partial(bytes_tokenizer, "<|end_of_text|>", "<fim_prefix>", "<fim_middle>")
_qwen = partial(bytes_tokenizer, "<|endoftext|>", "<|im_start|>", "<|im_end|>")

TINY: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "tiny-llama": ("llama", pieces_tokenizer, {"num_key_value_heads": 4}),
    "tiny-mistral": (
        "mistral",
        pieces_tokenizer,
        {"num_key_value_heads": 2, "sliding_window": None},
    ),
    "tiny-granite": (
        "granite",
        _granite,
        {
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "embedding_multiplier": 12.0,
            "logits_scaling": 16.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0625,
        },
    ),
    "tiny-qwen3": (
        "qwen3",
        _qwen,
        {"num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True},
    ),
    "tiny-mixtral": ("mixtral", pieces_tokenizer, {"num_key_value_heads": 2}),
    "tiny-mixtral-instruct": ("mixtral", pieces_tokenizer, {"num_key_value_heads": 2}),
}
"""Name -> family of transformers, tokenizer, what else its config says."""
