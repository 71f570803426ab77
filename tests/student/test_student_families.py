"""Rows in the templates of known families are what plain transformers makes of the same chat."""

import json
from pathlib import Path

import pytest
import torch
from tiny import CHAT, make_model, make_tokenizer, save_base
from transformers import AutoTokenizer

from feldspar.config import LoraConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.records import Conversation, Message
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import (
    Student,
    load_student,
    load_tokenizer,
    make_student,
    save_checkpoint,
)
from feldspar.student.training.lora import add_lora

GRANITE = Path(__file__).parents[2].parent / "shared" / "data" / "tokenizers" / "granite-7b-lab"
SYSTEM = Message(role="system", content="Be kind.")

CHATML = (
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FAMILIES = {
    "llama": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
        "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|eot_id|>",
    ),
    "mistral": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
        "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] | trim + '</s>' }}{% endif %}{% endfor %}",
        "</s>",
    ),
    "granite": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "{{ '<|start_of_role|>assistant<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
        "{% else %}{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + "
        "'<|end_of_text|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        "<|end_of_text|>",
    ),
    "qwen": (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}" + CHATML,
        "<|im_end|>",
    ),
    "qwen, thinking": (
        "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
        "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m['content'] + '<|im_end|>\n' }}"
        "{% else %}" + CHATML.replace("{% endfor %}", "{% endif %}{% endfor %}"),
        "<|im_end|>",
    ),
}
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "</s>", "[INST]", "[/INST]", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>",
]  # fmt: skip


def make_family(name: str) -> Student:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIAL})
    tokenizer.chat_template, tokenizer.eos_token = FAMILIES[name]
    config = StudentConfig(base=name, template="own", device="cpu")
    return make_student(make_model(len(tokenizer)), tokenizer, config)


def plain(student: Student, messages: tuple[Message, ...], *, generate: bool) -> list[int]:
    told = [{"role": m.role, "content": m.content} for m in messages]
    ids = student.tokenizer.apply_chat_template(told, add_generation_prompt=generate)
    return list(ids["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chat", [CHAT, CHAT[:2], (SYSTEM, *CHAT)], ids=["two", "one", "system"])
def test_rows_and_prompts_are_those_of_plain_transformers(family, chat):
    student = make_family(family)
    stop = FAMILIES[family][1]
    row = student.template.render(Conversation(id="1", source="t", messages=chat))
    theirs = plain(student, chat, generate=False)
    assert row.ids.tolist() == theirs[: len(row.ids)]
    # Only white space may come after the last stop token.
    assert student.tokenizer.decode(theirs[len(row.ids) :]).strip() == ""
    assert row.ids[-1] == student.template.stop_id
    trained = student.tokenizer.decode(row.ids[row.mask])
    answers = [m.content for m in chat if m.role == "assistant"]
    assert [a.split("</think>")[-1].strip() for a in trained.split(stop)[:-1]] == answers
    assert student.template.render_prompt(chat[:-1]) == plain(student, chat[:-1], generate=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stop_token_is_the_templates_and_no_row_is_added_for_padding(family):
    student = make_family(family)
    assert student.tokenizer.convert_ids_to_tokens(student.template.stop_id) == FAMILIES[family][1]
    assert student.model.generation_config.eos_token_id == student.template.stop_id
    num_rows = student.model.get_input_embeddings().weight.shape[0]
    assert student.template.pad_id < num_rows
    assert "<|pad|>" not in student.tokenizer.get_vocab()
    assert student.template.pad_id < student.model.get_input_embeddings().weight.shape[0]


def test_a_system_prompt_moved_to_the_last_question_is_refused():
    student = make_family("mistral")
    student.tokenizer.chat_template = FAMILIES["mistral"][0].replace("loop.first", "loop.last")
    rebuilt = StudentConfig(base="m", template="own", device="cpu")
    moved = make_student(student.model, student.tokenizer, rebuilt)
    row = Conversation(id="1", source="t", messages=(SYSTEM, *CHAT))
    with pytest.raises(TrainingError, match="rewrites earlier turns"):
        moved.template.render(row)


def test_low_rank_training_of_a_base_with_its_own_template_freezes_its_tokens():
    pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")
    student = add_lora(make_family("llama"), LoraConfig(), seed=1)
    assert not student.model.get_input_embeddings().weight.requires_grad
    assert not student.model.get_output_embeddings().weight.requires_grad


@pytest.mark.slow
@pytest.mark.skipif(not GRANITE.is_dir(), reason="no shared tokenizers beside the repository")
def test_missing_tokens_fit_into_a_padded_vocabulary():
    tokenizer = AutoTokenizer.from_pretrained(GRANITE)
    known = len(tokenizer)
    model = make_model(known + 64)
    student = make_student(model, tokenizer, StudentConfig(base="granite", device="cpu"))
    assert model.get_input_embeddings().weight.shape[0] == known + 64
    assert len(student.tokenizer) == known


def test_a_bases_own_end_ends_its_answers_too() -> None:
    """It was trained to end its texts with it, and never saw the stop token that it is given."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "</s>", "extra_special_tokens": ["<|eom|>"]})
    model = make_model(len(tokenizer))
    ids = tokenizer.convert_tokens_to_ids(["</s>", "<|eom|>"])
    model.generation_config.eos_token_id = ids
    student = make_student(model, tokenizer, StudentConfig(base="b", device="cpu"))
    assert student.template.end_ids == {*ids, student.template.stop_id}
    assert student.template.stop_id not in ids
    prompt = (Message(role="user", content="what is red?"),)
    with torch.no_grad():
        read = torch.tensor([student.template.render_prompt(prompt)])
        model.lm_head.weight[ids[1]] = 100 * model.model(input_ids=read).last_hidden_state[0, -1]
    ((said,),) = sample_answers(student, [prompt], keys=["k"], max_new_tokens=8, seed=0)
    assert said == ("", True, 1)
    # So do they what is trained, here and wherever else it is loaded.
    assert model.generation_config.eos_token_id == [student.template.stop_id, *sorted(ids)]
    again = make_student(model, tokenizer, StudentConfig(base="b", device="cpu"))
    assert again.template.end_ids == student.template.end_ids


def test_of_several_chat_templates_the_one_for_chats_is_taken(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIAL})
    template, tokenizer.eos_token = FAMILIES["qwen"]
    tokenizer.chat_template = {"default": template, "tool_use": "{{ 'tools' }}"}
    make_model(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = StudentConfig(base=str(tmp_path), template="own", device="cpu")
    assert load_student(str(tmp_path), config).tokenizer.chat_template == template
    tokenizer.chat_template = {"tool_use": "{{ 'tools' }}", "rag": "{{ 'rag' }}"}
    tokenizer.save_pretrained(tmp_path / "named")
    with pytest.raises(TrainingError, match='none called "default"'):
        load_tokenizer(str(tmp_path / "named"))


def test_a_file_that_says_how_to_sample_and_not_to_can_be_saved_again(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "base")
    told = json.loads((folder / "generation_config.json").read_text())
    told |= {"temperature": 0.9, "top_p": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(told))
    student = load_student(str(folder), StudentConfig(base=str(folder), device="cpu"))
    save_checkpoint(student, tmp_path / "saved", phase="p", step=1)
    assert (tmp_path / "saved" / "config.json").is_file()
