"""A student small enough for tests: a random Llama and a tokenizer trained in-process."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig
from feldspar.records import Conversation, Message
from feldspar.student.model import Student, make_student
from feldspar.student.template.layout import lab_chat_template

# Threads cost more than they bring at this size, above all on a busy machine.
torch.set_num_threads(1)

CHAT = (
    Message(role="user", content="greet me"),
    Message(role="assistant", content="hello!"),
    Message(role="user", content="and now?"),
    Message(role="assistant", content="later"),
)
COLOURS = ("red", "green", "blue", "grey")


LEAF = """\
version: 2
created_by: tester
task_description: Rhymes.
seed_examples:
""" + "".join(
    f"  - question: What rhymes with {word}?\n    answer: The word {rhyme} rhymes with it.\n"
    for word, rhyme in [
        ("cat", "hat"),
        ("sun", "run"),
        ("day", "way"),
        ("top", "hop"),
        ("red", "bed"),
    ]
)
"""A qna.yaml of five seeds."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [m.content for m in CHAT] + [f"what is {c}? it is {c}." for c in COLOURS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def make_model(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
        )
    )


def make_tiny(**config: object) -> Student:
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    return make_student(model, tokenizer, StudentConfig(base="tiny", device="cpu", **config))


def save_base(path: Path) -> Path:
    """A base without roles, stop or pad, as it comes from elsewhere."""
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save_model(path: Path, *, seed: int = 0, has_template: bool = False) -> Path:
    """Another base each `seed`; `has_template`: one that is spoken to in the lab template."""
    tokenizer = make_tokenizer()
    if has_template:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": ["<|user|>", "<|assistant|>", "<|endoftext|>"]}
        )
        tokenizer.chat_template = lab_chat_template(bos=False, system_prompt="")
    make_model(len(tokenizer), seed=seed).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def chats(num_rows: int, source: str = "colours", seed: int = 1) -> list[Conversation]:
    """Rows of uneven length about colours."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_rows):
        words = [rng.choice(COLOURS) for _ in range(rng.randint(1, 9))]
        question = Message(role="user", content=f"what is {' '.join(words)}?")
        answer = Message(role="assistant", content=f"it is {words[0]}.")
        rows.append(
            Conversation(id=f"{source}-{number}", source=source, messages=(question, answer))
        )
    return rows
