"""Mutated recipes through the command line in this process: `plan`, or a whole run made small.

The command either ends well or says one printable line with its exit code.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import typer
from mutants import as_toml, broken_bytes, mild_mutant, mutant

from feldspar.cli import main as command_line

EXIT_CODES = (0, 1, 2, 3, 4, 5, 6, 7)
LEAF = """\
version: 2
created_by: tester
task_description: Rhymes.
seed_examples:
  - question: What rhymes with cat?
    answer: The word hat rhymes with it.
  - question: What rhymes with sun?
    answer: The word run rhymes with it.
  - question: What rhymes with day?
    answer: The word way rhymes with it.
  - question: What rhymes with top?
    answer: The word hop rhymes with it.
  - question: What rhymes with red?
    answer: The word bed rhymes with it.
"""
TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "world": {"num_old": 120, "num_new": 60, "training": 0.002},
    "taxonomy": {"path": "taxonomy", "exam_fraction": 0.2, "chunk_tokens": 120},
    "teacher": {"endpoint": "embedded", "concurrency": 4, "errors": {"wrong_fact": 0.1}},
    "generate": {"samples_per_leaf": 8, "pairs_per_call": 2, "exam_items": 4, "temperature": 0.7},
    "student": {"base": "base", "max_length": 256, "device": "cpu", "template": "lab"},
    "data": [{"name": "mine", "path": "rows.jsonl"}],
    "mix": {"base_replay": {"source": "rows.jsonl", "share": 0.2}, "max_bad_rows": 0.5},
    "train": {
        "learning_rate": 1e-3,
        "batch_samples": 8,
        "warmup_steps": 2,
        "betas": [0.9, 0.95],
        "phase": [
            {"name": "own", "data": ["mine"], "select": "last", "num_epochs": 1},
            {
                "name": "skills",
                "branches": ["foundational", "compositional"],
                "replay": [{"phase": "own", "fraction": 0.5}],
                "select": "log-likelihood",
            },
        ],
    },
    "evaluate": {
        "max_new_tokens": 4,
        "num_resamples": 20,
        "min_selection_items": 2,
        "exam": [{"name": "own exam", "path": "exam.jsonl"}],
    },
}
MORE: dict[str, Any] = {
    "extends": [],
    "journal": ".feldspar/journal.sqlite",
    "judge": {"endpoint": "embedded", "temperature": 0.0, "max_retries": 2},
    "generate": {
        "target": 4,
        "min_rating": 2,
        "judge_floor": 0.5,
        "budget": {"max_calls": 100, "max_tokens": 10_000, "max_cost": 1.5},
        "knowledge": {"renderings": ["summary"], "kinds": ["pair", "document"]},
    },
    "student": {"base": "base", "lora": {"rank": 4, "alpha": 8.0}, "dtype": "float32"},
    "track": {"to": []},
    "prefer": {"aligned": "base", "base": "base", "num_prompts": 8, "num_answers": 2},
    "plan": {
        "gpu": "h200x8",
        "mfu": 0.4,
        "row_tokens": 100,
        "price_per_gpu_hour": 2.0,
        "architecture": {
            "hidden_size": 64,
            "num_layers": 2,
            "intermediate_size": 128,
            "vocabulary": 300,
            "num_heads": 4,
        },
        "samples": {"knowledge": 10, "foundational": 10, "compositional": 10},
    },
    "learn": {"replay_share": 0.5, "num_epochs": 2},
    "publish": {"licence": "apache-2.0", "max_shard_mb": 100},
    "serve": {"max_tokens": 64, "max_requests": 4},
}
SMALL_ODD = (0, 1, 2, 3, -1, 0.0, 0.1, 0.5, 1.0, 1.5, 1e-9, 1e9, 64, "", "x", "last", True, [], {})
"""Values that make no run long."""


def plan_one(folder: Path, dice: random.Random) -> str:
    """A mutant of a recipe with every table through `plan`."""
    _project(folder)
    tree: dict[str, Any] = json.loads(json.dumps(TINY))
    if dice.random() < 0.9:
        # Every other seed is another world, and each takes a second to make.
        del tree["world"]
    for key in dice.sample(sorted(MORE), dice.randrange(len(MORE))):
        tree[key] = MORE[key]
    if dice.random() < 0.2:
        tree.pop("taxonomy")
        tree["train"]["phase"].pop()
    return _try(folder, tree, dice, ["plan", "recipe.toml"] + ["--json"] * (dice.random() < 0.3))


def run_one(folder: Path, dice: random.Random) -> str:
    """A mutant of a tiny recipe through a whole run, in a process of its own."""
    _project(folder)
    tree: dict[str, Any] = json.loads(json.dumps(TINY))
    if dice.random() < 0.3:
        tree["prefer"] = MORE["prefer"] | {"max_new_tokens": 4}
    child = os.fork()
    if child:
        return _wait(child, folder)
    try:
        with (folder / "became").open("w") as file:
            file.write(_try(folder, tree, dice, ["run", "recipe.toml"], SMALL_ODD))
    except BaseException as error:
        (folder / "became").write_text(f"FAULT {type(error).__name__}: {str(error)[-1500:]}")
    os._exit(0)


def _wait(child: int, folder: Path) -> str:
    try:
        os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    became = (folder / "became").read_text()
    assert not became.startswith("FAULT"), (became, (folder / "recipe.toml").read_bytes()[-1500:])
    return became


def _try(
    folder: Path,
    tree: dict[str, Any],
    dice: random.Random,
    arguments: list[str],
    odd: tuple[Any, ...] | None = None,
) -> str:
    changed = tree
    if (is_mild := dice.random() < 0.7) or dice.random() < 0.2:
        changed = mild_mutant(changed, dice)
    if not is_mild:
        changed = mutant(changed, dice) if odd is None else mutant(changed, dice, odd=odd)
    content = as_toml(changed if isinstance(changed, dict) else {"x": changed})
    if dice.random() < 0.05:
        content = broken_bytes(content, dice)
    return _tell(folder, content, arguments)


def _tell(folder: Path, content: bytes, arguments: list[str]) -> str:
    (folder / "recipe.toml").write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _command(arguments)
    finally:
        os.chdir(before)
    said = [line for line in err.getvalue().split("\n") if line.startswith("feldspar: ")]
    for text in (out.getvalue(), "\n".join(said)):
        assert all(c.isprintable() or c == "\n" for c in text), text[-300:]
    assert "Traceback" not in err.getvalue(), err.getvalue()[-1500:]
    assert code in EXIT_CODES, code
    assert code == 0 or len(said) == 1, (code, err.getvalue()[-600:])
    if code == 0 and "--json" in arguments:
        json.loads(out.getvalue(), parse_constant=_no_such_number)
    return "done" if code == 0 else f"refused with exit code {code}"


def _no_such_number(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@cache
def _commands() -> Any:
    command_line._add_commands()
    command_line._guard(command_line.app, is_debug=False)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger().setLevel(logging.ERROR)
    return typer.main.get_command(command_line.app)


def _command(arguments: list[str]) -> int:
    try:
        code = _commands().main(arguments, standalone_mode=False)
    except SystemExit as stop:
        code = stop.code
    return 0 if code is None else int(code)


def prepare() -> None:
    """Load what commands load, once: the alarm is for what a recipe takes."""
    import feldspar.flow
    import feldspar.student.fit  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        _project(Path(folder))
        for arguments in (["plan", "recipe.toml"], ["doctor", "recipe.toml"]):
            _tell(Path(folder), as_toml(TINY), arguments)


@cache
def _parts() -> Path:
    """A base, rows and exams, made once."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = Path(tempfile.mkdtemp())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["what rhymes with the word"] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    sizes = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(sizes).save_pretrained(folder / "base")
    fast.save_pretrained(folder / "base")
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "y"}]}
        for n in range(24)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exam = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]
    (folder / "exam.jsonl").write_text("".join(json.dumps(item) + "\n" for item in exam))
    leaf = folder / "taxonomy" / "compositional_skills" / "rhymes"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(LEAF)
    return folder


def _project(folder: Path) -> None:
    for path in _parts().iterdir():
        (folder / path.name).symlink_to(path)
