"""A model that was taught three facts, and an exam on them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import EvaluateConfig, StudentConfig
from feldspar.records import Checkpoint, Conversation, ExamItem, Message
from feldspar.student.fit import fit
from feldspar.student.model import make_student, save_checkpoint
from feldspar.student.token_rows import tokenise
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

STUDENT = StudentConfig(base="tiny")
CONFIG = EvaluateConfig(max_new_tokens=16, num_resamples=50)
FACTS = {"What is red?": "It is blood.", "What is blue?": "It is sea.", "And green?": "It is leaf."}

# Threads that wait for each other cost more than this model's arithmetic.
torch.set_num_threads(1)


def item(question, answer, use="report", match="final", exam="facts", **more):
    return ExamItem(
        id=f"{exam} {question}", exam=exam, question=question, reference=answer,
        accepted=() if match == "likelihood" else (answer.split()[-1],), match=match, use=use,
        **more,
    )  # fmt: skip


ITEMS = [
    item("What is red?", "It is blood."),
    item("What is blue?", "It is mud."),
    item("And green?", "It is leaf.", match="likelihood"),
]


def bytes_tokenizer():
    """Every byte a token: none is ever missing."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_checkpoints(folder: Path) -> dict[str, Checkpoint]:
    """A model that knows nothing, and the same after it was taught the facts."""
    torch.manual_seed(1)
    tokenizer = bytes_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    student = make_student(LlamaForCausalLM(config), tokenizer, STUDENT)
    base = save_checkpoint(student, folder / "base", phase="base", step=0)
    rows = [
        Conversation(
            id=question,
            source="facts",
            messages=(
                Message(role="user", content=question),
                Message(role="assistant", content=answer),
            ),
        )
        for question, answer in FACTS.items()
    ]
    tokens = tokenise(student.template, [("facts", rows)], 128)
    schedule = Schedule(
        sources=(SourceRows(name="facts", num_rows=3),), batch_samples=3, num_epochs=120,
        phase="facts", seed=1,
    )  # fmt: skip
    fit(student, tokens, schedule, FitSettings(learning_rate=5e-3), folder=folder)
    taught = save_checkpoint(student, folder / "taught", phase="facts", step=120)
    return {"base": base, "taught": taught}
