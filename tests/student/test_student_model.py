"""Loading, added tokens, saving whole, and knowing by content."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import CHAT, make_model, make_tiny, make_tokenizer, save_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.student.model import (
    base_checkpoint,
    compute_threads,
    digest_checkpoint,
    load_student,
    make_student,
    save_checkpoint,
)

CONFIG = StudentConfig(base="tiny", device="cpu")


@pytest.fixture
def threads() -> Iterator[int]:
    """More than one thread, as a machine with several cores has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_missing_tokens_are_added_and_start_at_the_mean(tmp_path):
    base = save_base(tmp_path / "base")
    before = AutoModelForCausalLM.from_pretrained(base)
    student = load_student(str(base), CONFIG)
    num_old = before.config.vocab_size
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, layer)().weight, getattr(student.model, layer)().weight
        assert len(new) == num_old + 5
        torch.testing.assert_close(new[:num_old], old)
        torch.testing.assert_close(new[num_old:], old.mean(dim=0).expand(5, -1))


def test_a_vocabulary_of_whole_tiles_keeps_them():
    tokenizer = make_tokenizer()
    num_old = len(tokenizer)
    rows = -(-num_old // 64) * 64
    model = make_model(rows)
    # As many tokens as rows, so that new ones need new rows.
    tokenizer.add_tokens([f"<{i}>" for i in range(rows - num_old)])
    mean = model.get_input_embeddings().weight.mean(dim=0).detach()
    student = make_student(model, tokenizer, CONFIG)
    weight = student.model.get_input_embeddings().weight
    assert len(weight) == rows + 64 == student.model.config.vocab_size
    assert len(student.tokenizer) == rows + 5
    torch.testing.assert_close(weight[rows:].detach(), mean.expand(64, -1))


def test_pad_is_never_the_stop_token():
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    tokenizer.pad_token = "<|endoftext|>"
    student = make_student(make_model(len(tokenizer)), tokenizer, CONFIG)
    assert student.tokenizer.pad_token == "<|pad|>"
    assert student.template.pad_id != student.template.stop_id


def test_a_published_folder_is_loaded_by_plain_transformers(tmp_path):
    student = make_tiny()
    save_checkpoint(student, tmp_path / "out", phase="p", step=3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    messages = [{"role": "user", "content": "greet me"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    assert ids["input_ids"][0].tolist() == student.template.render_prompt(CHAT[:1])
    assert model.generation_config.eos_token_id == student.template.stop_id
    assert model.generation_config.pad_token_id == student.template.pad_id
    assert tokenizer.eos_token == "<|endoftext|>"
    with torch.no_grad():
        torch.testing.assert_close(model(**ids).logits, student.model(**ids).logits)


def test_saved_again_it_is_the_same_by_content(tmp_path):
    first = save_checkpoint(make_tiny(), tmp_path / "a", phase="p", step=3)
    loaded = load_student(first.path, CONFIG)
    again = save_checkpoint(loaded, tmp_path / "b", phase="q", step=9)
    assert first.digest == again.digest == base_checkpoint(again.path).digest
    (tmp_path / "b" / "README.md").write_text("not part of it")
    assert digest_checkpoint(tmp_path / "b") == first.digest
    weights = tmp_path / "b" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert digest_checkpoint(tmp_path / "b") != first.digest


def test_a_checkpoint_that_was_not_finished_is_not_there(tmp_path):
    student = make_tiny()
    student.tokenizer.save_pretrained = None
    with pytest.raises(TypeError):
        save_checkpoint(student, tmp_path / "out", phase="p", step=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "code",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 64), "loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "t5"}'), "loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "loaded"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(tmp_path, spoil, says):
    base = save_base(tmp_path / "base")
    spoil(base)
    with pytest.raises(TrainingError, match=says):
        load_student(str(base), CONFIG)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TrainingError, match="no such model directory"):
        load_student(str(tmp_path / "gone"), CONFIG)


def test_own_template_needs_a_template(tmp_path):
    base = save_base(tmp_path / "base")
    with pytest.raises(TrainingError, match="chat template"):
        load_student(str(base), CONFIG.model_copy(update={"template": "own"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path):
    base = save_base(tmp_path / "base")
    with pytest.raises(TrainingError, match="cuda"):
        load_student(str(base), CONFIG.model_copy(update={"device": "cuda"}))


def test_loading_says_which_tokens_were_added(tmp_path: Path, caplog):
    base = save_base(tmp_path / "base")
    with caplog.at_level(logging.INFO):
        load_student(str(base), CONFIG)
    assert "<|assistant|>" in caplog.text


def test_a_small_model_computes_on_one_thread_and_leaves_the_process_as_it_was(
    threads: int,
) -> None:
    student = make_tiny()
    assert torch.get_num_threads() == threads
    with student.computing():
        assert torch.get_num_threads() == 1
        with student.computing():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    with pytest.raises(InterruptedError), compute_threads(student):
        raise InterruptedError
    assert torch.get_num_threads() == threads


def test_a_large_model_computes_on_the_threads_that_are_set(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_tiny()
    monkeypatch.setattr("feldspar.student.model._ONE_THREAD_PARAMETERS", 100)
    with student.computing():
        assert torch.get_num_threads() == threads
