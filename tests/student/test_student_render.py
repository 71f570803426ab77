"""What a row looks like in tokens, and what of it is trained."""

from pathlib import Path

import pytest
from tiny import CHAT, make_model, make_tiny, make_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.keys import content_key
from feldspar.records import Conversation, Message
from feldspar.student.model import Student, load_student, make_student, with_template
from feldspar.student.template.layout import OwnLayout, lab_chat_template

GRANITE = Path(__file__).parents[2].parent / "shared" / "data" / "tokenizers" / "granite-7b-lab"

OWN_TEMPLATES = {
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
    ),
    "brackets": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}",
        "</s>",
    ),
}


@pytest.fixture(scope="module")
def student() -> Student:
    return make_tiny()


BLANK_BEFORE_STOP = OWN_TEMPLATES["chatml"][0].replace("'<|im_end|>", "' <|im_end|>")
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + OWN_TEMPLATES["chatml"][0]
ADDS_BOS = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])


def make_own(name: str, *, template: str = "", adds_bos: bool = False) -> Student:
    tokenizer = make_tokenizer()
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = ADDS_BOS
    special = ["<|im_start|>", "<|im_end|>", "</s>", "[INST]", "[/INST]"]
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    tokenizer.chat_template, tokenizer.eos_token = OWN_TEMPLATES[name]
    tokenizer.chat_template = template or tokenizer.chat_template
    model = make_model(len(tokenizer))
    return make_student(model, tokenizer, StudentConfig(base="own", template="own", device="cpu"))


def row(*messages: Message, **more: object) -> Conversation:
    return Conversation(id="1", source="test", messages=messages, **more)


def trained_text(student: Student, conversation: Conversation) -> str:
    rendered = student.template.render(conversation)
    return student.tokenizer.decode(rendered.ids[rendered.mask])


def test_only_answers_and_their_stop_tokens_are_trained(student):
    assert trained_text(student, row(*CHAT)) == "hello!<|endoftext|>later<|endoftext|>"


def test_the_lab_template_is_that_of_the_cards(student):
    ids = student.template.render(row(Message(role="system", content="Be kind."), *CHAT)).ids
    assert student.tokenizer.decode(ids) == (
        "<|system|>\nBe kind.\n<|user|>\ngreet me\n<|assistant|>\nhello!<|endoftext|>"
        "\n<|user|>\nand now?\n<|assistant|>\nlater<|endoftext|>"
    )


def test_a_system_prompt_comes_first_and_gives_way_to_the_rows_own():
    student = make_tiny(system_prompt="Be kind.")
    own = Message(role="system", content="Be curt.")
    decode = student.tokenizer.decode
    assert decode(student.template.render(row(*CHAT)).ids).startswith(
        "<|system|>\nBe kind.\n<|user|>"
    )
    assert decode(student.template.render(row(own, *CHAT)).ids).startswith("<|system|>\nBe curt.\n")


@pytest.mark.parametrize("kind", ["lab", "chatml", "brackets"])
@pytest.mark.parametrize(
    "content", ["greet me", "<|assistant|>\nno", "</s> <|im_end|>", " é\n\n", ""]
)
def test_a_prompt_is_the_start_of_its_row(kind, content):
    student = make_tiny() if kind == "lab" else make_own(kind)
    chat = (Message(role="user", content=content), *CHAT[1:3], CHAT[3])
    ids = student.template.render(row(*chat)).ids.tolist()
    for number in (1, 3):
        prompt = student.template.render_prompt(chat[:number])
        assert ids[: len(prompt)] == prompt
        answer = student.template.render_answer(chat[:number], chat[number].content, ended=True)
        assert ids[len(prompt) : len(prompt) + len(answer)] == answer


@pytest.mark.parametrize("system_at", [0, 2])
@pytest.mark.parametrize("content", ["", "Be brief."])
def test_plain_transformers_see_the_same_system_message(system_at, content):
    student = make_tiny(system_prompt="Say it.")
    chat = [Message(role=role, content=role) for role in ("user", "assistant", "user")]
    chat.insert(system_at, Message(role="system", content=content))
    messages = [{"role": m.role, "content": m.content} for m in chat]
    theirs = student.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert theirs["input_ids"] == student.template.render_prompt(chat)


@pytest.mark.parametrize("kind", ["lab", "chatml", "brackets"])
def test_plain_transformers_make_the_same_prompt(kind):
    student = make_tiny(system_prompt='Say "x" \\ é 😀') if kind == "lab" else make_own(kind)
    messages = [{"role": m.role, "content": m.content} for m in CHAT[:3]]
    theirs = student.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    ours = student.template.render_prompt(CHAT[:3])
    assert theirs["input_ids"] == ours


@pytest.mark.parametrize("kind", ["chatml", "brackets"])
def test_a_bases_own_template_trains_answers_and_its_stop_token(kind):
    student = make_own(kind)
    stop = OWN_TEMPLATES[kind][1]
    lead = " " if kind == "brackets" else ""
    assert trained_text(student, row(*CHAT)) == f"{lead}hello!{stop}{lead}later{stop}"
    assert student.template.pad_id == student.template.stop_id


@pytest.mark.parametrize("spelled", ["<|endoftext|>", "<|USER|>", "a <|assistant|>\nb", "<s>"])
def test_text_that_spells_a_special_token_is_not_one(student, spelled):
    special = set(student.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<s>"]))
    special.add(student.tokenizer.convert_tokens_to_ids("<|assistant|>"))
    plain = student.template.render(row(*CHAT[:2])).ids
    chat = (Message(role="user", content=spelled), Message(role="assistant", content=spelled))
    hostile = student.template.render(row(*chat)).ids
    assert sum(i in special for i in hostile) == sum(i in special for i in plain)
    assert student.tokenizer.decode(hostile) == (
        f"<|user|>\n{spelled}\n<|assistant|>\n{spelled}<|endoftext|>"
    )


@pytest.mark.parametrize("kind", ["lab", "chatml", "brackets"])
@pytest.mark.parametrize("spelled", ["", " <|endoftext|> <|im_end|> </s>"])
def test_unmasked_turns_are_trained_without_system_and_marks(kind, spelled):
    student = make_tiny(system_prompt="Be kind.") if kind == "lab" else make_own(kind)
    chat = [
        Message(role="user", content=f"what is red{spelled}?"), CHAT[1],
        Message(role="user", content="and now?"), CHAT[3], Message(role="user", content="then"),
    ]  # fmt: skip
    conversation = row(*chat, train_on="turns")
    stop = student.tokenizer.decode([student.template.stop_id])
    said = [f"what is red{spelled}?", f"hello!{stop}", "and now?", f"later{stop}"]
    assert trained_text(student, conversation).replace(" ", "") == "".join(said).replace(" ", "")
    (together,) = student.template.render_all([conversation])
    assert together.mask.tolist() == student.template.render(conversation).mask.tolist()


@pytest.mark.parametrize("kind", ["lab", "chatml", "brackets"])
def test_an_answer_that_was_cut_off_has_no_end(kind):
    student = make_tiny(system_prompt="Be kind.") if kind == "lab" else make_own(kind)
    whole = student.template.render(row(*CHAT[:4]))
    cut = student.template.render(row(*CHAT[:4], train_on="unended"))
    assert whole.ids[-1] == student.template.stop_id
    assert cut.ids.tolist() == whole.ids[: len(cut.ids)].tolist()
    assert cut.mask.tolist() == whole.mask[: len(cut.ids)].tolist()
    # The answer before it has its own.
    assert cut.ids[cut.mask].tolist().count(student.template.stop_id) == 1
    assert student.template.decode_answers([cut.ids[cut.mask].tolist()])[0].endswith(
        CHAT[3].content
    )
    (together,) = student.template.render_all([row(*CHAT[:4], train_on="unended")])
    assert together.ids.tolist() == cut.ids.tolist()


@pytest.mark.parametrize("kind", ["lab", "chatml", "brackets"])
def test_rows_encoded_together_are_what_each_is_alone(kind):
    student = make_tiny(system_prompt="Be kind.") if kind == "lab" else make_own(kind)
    asked = Message(role="user", content="say <|endoftext|> and <|im_end|> twice")
    told = Message(role="assistant", content="</s> then <|USER|>\n")
    text = row(Message(role="assistant", content="A text of its own."), train_on="everything")
    rows = [row(*CHAT), row(asked, told), text, row(*CHAT[:1]), row(asked, *CHAT[1:], told)]
    together = student.template.render_all(rows)
    for conversation, found in zip(rows, together, strict=True):
        alone = student.template.render(conversation)
        assert found.ids.tolist() == alone.ids.tolist()
        assert found.mask.tolist() == alone.mask.tolist()


def test_a_template_is_known_by_what_decides_its_rows():
    keys = {make_tiny().template.key, make_tiny(system_prompt="Be kind.").template.key}
    keys |= {make_own(kind).template.key for kind in OWN_TEMPLATES}
    assert len(keys) == 4
    assert make_tiny().template.key in keys


def test_everything_is_all_but_bos():
    student = make_tiny()
    assert trained_text(student, row(*CHAT[:2], train_on="everything")) == (
        "<|user|>\ngreet me\n<|assistant|>\nhello!<|endoftext|>"
    )
    text = Message(role="assistant", content="Plain <|user|> text.")
    assert trained_text(student, row(text, train_on="everything")) == (
        "Plain <|user|> text.<|endoftext|>"
    )


def test_bos_comes_once_and_is_not_trained():
    student = make_own("brackets")
    rendered = student.template.render(row(*CHAT, train_on="everything"))
    bos = student.tokenizer.bos_token_id
    assert rendered.ids.tolist().count(bos) == 1
    assert rendered.ids[0] == bos
    assert not rendered.mask[0]
    assert rendered.mask[1:].all()


def test_sampled_ids_read_as_they_were_written(student):
    texts = ["hello!", " with a space", "two\nlines", ""]
    ids = [student.template.render_answer(CHAT[:1], text, ended=True) for text in texts]
    assert student.template.decode_answers(ids) == texts


def test_a_template_that_rewrites_earlier_turns_is_refused():
    student = make_own("chatml")
    # The answer's header is another than the one it is asked for under.
    student.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
    )
    with pytest.raises(TrainingError, match="rewrites"):
        OwnLayout(student.tokenizer)


def test_a_template_that_refuses_a_role_says_so():
    student = make_own("chatml")
    student.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}" + OWN_TEMPLATES["chatml"][0].removeprefix("{% for m in messages %}")
    )
    layout = OwnLayout(student.tokenizer)
    with pytest.raises(TrainingError, match="no system"):
        layout((Message(role="system", content="Be kind."), *CHAT), True)


@pytest.mark.slow
@pytest.mark.skipif(not GRANITE.is_dir(), reason="no shared tokenizers beside the repository")
@pytest.mark.parametrize("template", ["lab", "own"])
def test_rows_of_granite_are_what_its_own_template_makes(template):
    tokenizer = AutoTokenizer.from_pretrained(GRANITE)
    chat = (Message(role="system", content="Be kind."), *CHAT)
    messages = [{"role": m.role, "content": m.content} for m in chat]
    theirs = tokenizer.apply_chat_template(messages)["input_ids"]
    config = StudentConfig(base="granite", template=template, device="cpu")
    student = make_student(make_model(len(tokenizer)), tokenizer, config)
    assert len(student.tokenizer) == 32005
    assert student.template.render(row(*chat)).ids.tolist() == theirs
    assert trained_text(student, row(*chat)) == "hello!<|endoftext|>later<|endoftext|>"
    asked = student.tokenizer.apply_chat_template(messages[:2], add_generation_prompt=True)
    assert student.template.render_prompt(chat[:2]) == asked["input_ids"]
    ids = student.template.render_answer(chat[:2], " a b", ended=True)
    assert student.template.decode_answers([ids]) == [" a b"]


def whole_chat(student: Student) -> list[int]:
    messages = [{"role": m.role, "content": m.content} for m in CHAT]
    return list(student.tokenizer.apply_chat_template(messages)["input_ids"])


@pytest.mark.parametrize("name", ["chatml", "brackets"])
def test_rows_begin_with_bos_where_the_saved_template_writes_it_and_nowhere_else(name):
    student = make_own(name, adds_bos=True)
    bos = student.tokenizer.bos_token_id
    assert student.tokenizer("x")["input_ids"][0] == bos
    ids = student.template.render(row(*CHAT)).ids.tolist()
    assert whole_chat(student)[: len(ids)] == ids
    assert (ids[0] == bos) == (name == "brackets")
    text = row(Message(role="assistant", content="A text."), train_on="everything")
    assert student.template.render(text).ids[0] == bos


def test_a_blank_before_the_stop_token_gives_one_stop_a_turn():
    student = make_own("chatml", template=BLANK_BEFORE_STOP)
    template = student.template
    ids = template.render(row(*CHAT)).ids.tolist()
    # The template's own line end after the last turn is no part of the row.
    assert whole_chat(student)[: len(ids)] == ids
    # One for each of the four turns: ChatML ends a user's turn with it too.
    assert ids.count(template.stop_id) == 4
    assert trained_text(student, row(*CHAT)) == "hello! <|im_end|>later <|im_end|>"
    answer = template.render_answer(CHAT[:1], "hello!", ended=True)
    assert template.decode_answers([answer[:-1]]) == ["hello!"]
    cut = template.render_answer(CHAT[:1], "hello!", ended=False)
    assert student.tokenizer.decode(cut) == "hello!"


def test_a_template_that_writes_the_date_writes_the_same_one_on_every_day():
    student = make_own("chatml", template=DATED)
    text = student.tokenizer.decode(student.template.render(row(*CHAT)).ids)
    assert text.startswith("Today: 26 Jul 2024\n<|im_start|>user\ngreet me")
    assert student.template.asks_date
    # What is saved keeps its clock.
    assert "strftime_now" in student.tokenizer.chat_template
    assert not make_own("chatml").template.asks_date


def test_what_a_template_cannot_write_is_refused_row_by_row():
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + OWN_TEMPLATES["chatml"][0]
    )
    template = make_own("chatml", template=strict).template
    system = Message(role="system", content="Be kind.")
    assert template.refusal(row(*CHAT)) == ""
    assert "refuses turns system, user" in template.refusal(row(system, *CHAT))
    assert "the assistant speaks first" in template.refusal(row(*CHAT[1:]))
    assert make_tiny().template.refusal(row(*CHAT[1:])) == ""


def test_an_open_template_is_the_bases_own_where_it_has_another_than_lab(tmp_path: Path) -> None:
    def chosen(template: str | None) -> str:
        tokenizer = make_tokenizer()
        tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
        tokenizer.chat_template = template
        make_model(len(tokenizer)).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        config = StudentConfig(base=str(tmp_path), device="cpu")
        student = load_student(config.base, config)
        resolved = with_template(config).template
        assert resolved == student.template.kind
        stated = config.model_copy(update={"template": resolved})
        # What is left open and what is stated have one key.
        assert content_key(with_template(config)) == content_key(stated)
        assert with_template(stated) is stated
        return resolved

    assert chosen(None) == "lab"
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    assert chosen(lab_chat_template(bos=False, system_prompt="")) == "lab"
    assert chosen(lab_chat_template(bos=True, system_prompt="Be kind.")) == "lab"
    assert chosen(OWN_TEMPLATES["brackets"][0].replace("</s>", "<|endoftext|>")) == "own"
    # Roles alone are not the lab template: Zephyr's answers end otherwise.
    zephyr = lab_chat_template(bos=False, system_prompt="").replace("<|endoftext|>", "<s>")
    assert chosen(zephyr) == "own"
