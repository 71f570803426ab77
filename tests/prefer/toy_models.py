"""Tiny models: a policy that says two things alike, and a pair that prefers one of them."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig
from feldspar.records import Conversation, Message, Prompt
from feldspar.student.fit import fit
from feldspar.student.model import make_student
from feldspar.student.token_rows import tokenise
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

# Threads that wait for each other cost more than these models' arithmetic.
torch.set_num_threads(1)

THINGS = ("stone", "river", "cloud", "tree", "house", "road", "lamp", "bread", "coat", "wheel")
GOOD, BAD = "It is lovely.", "It is dreadful."


def ask(number):
    return f"How is the {THINGS[number % len(THINGS)]} number {number}?"


def prompt(number):
    return Prompt(
        id=f"p{number}",
        source=f"leaf{number % 3}",
        messages=(Message(role="user", content=ask(number)),),
    )


def tiny_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([ask(n) for n in range(40)] + [GOOD, BAD] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def tiny_student(seed, hidden=48):
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    return make_student(LlamaForCausalLM(config), tokenizer, StudentConfig(base="tiny"))


def save_foreign_model(path, without=None):
    """A model with a tokenizer of its own, a token a byte, that knows no roles and no template, nor
    the letter `without`."""
    torch.manual_seed(5)
    alphabet = sorted({*pre_tokenizers.ByteLevel.alphabet()} - {without} | {"<unk>"})
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    fast.save_pretrained(path)


def teach(student, answers, here, num_steps):
    """Train on all questions with the answers in turn."""
    rows = [
        Conversation(
            id=f"{n}",
            source="toy",
            messages=(
                Message(role="user", content=ask(n)),
                Message(role="assistant", content=answers[n % len(answers)]),
            ),
        )
        for n in range(64)
    ]
    tokens = tokenise(student.template, [("toy", rows)], 128)
    schedule = Schedule(
        sources=(SourceRows(name="toy", num_rows=len(tokens)),),
        batch_samples=32, num_epochs=(num_steps + 1) // 2, phase="toy", seed=1,
    )  # fmt: skip
    fit(student, tokens, schedule, FitSettings(learning_rate=3e-3), folder=here)
