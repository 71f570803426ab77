"""GGUF files: made by the tools that are there, read back, and never half."""

import json
from pathlib import Path

import pytest
from gguf_files import chat_tokenizer
from llama_cpp import write_llama_cpp

from feldspar.errors import RunError
from feldspar.publish.gguf import find_tools, write_gguf
from feldspar.publish.llama_server import find_command
from feldspar.publish.modelfile import (
    Modelfile,
    NoModelfile,
    modelfile_of,
    parse_modelfile,
    render_go,
)
from feldspar.records import Message
from feldspar.student.bases.gguf_header import read_header


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the tools read of a published directory; LLAMA_CPP names the stand-in."""
    pytest.importorskip("gguf", reason="needs feldspar[gguf]")
    folder = tmp_path / "published"
    tokenizer = chat_tokenizer()
    tokenizer.save_pretrained(folder)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    monkeypatch.setenv("LLAMA_CPP", str(write_llama_cpp(tmp_path / "llama.cpp")))
    return folder


@pytest.mark.slow
def test_files_say_how_many_matrices_fell_back(published: Path) -> None:
    types = ["q8_0", "q4_k_m", "f16", "q8_0"]
    made = write_gguf(published, "demo", types, find_tools(types))
    assert [file.path.name for file in made] == [
        "demo-Q8_0.gguf",
        "demo-Q4_K_M.gguf",
        "demo-F16.gguf",
    ]
    assert [file.fallback for file in made] == ["1 of 2 (1 F16)", "1 of 2 (1 Q5_0)", "0 of 2"]
    assert {path.name for path in published.glob("*gguf*")} == {file.path.name for file in made}
    assert read_header(made[2].path).text("general.name") == "demo"


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r"get llama\.cpp's source .*set LLAMA_CPP"):
        find_tools(["f16"])
    monkeypatch.setenv("LLAMA_CPP", str(write_llama_cpp(tmp_path / "source", quantiser=False)))
    assert find_tools(["q8_0"]).quantiser is None
    with pytest.raises(RunError, match=r"q4_k_m needs .*--target llama-quantize"):
        find_tools(["q8_0", "q4_k_m"])
    with pytest.raises(RunError, match="no GGUF type 'q9'; there are: f32, f16"):
        find_tools(["q9"])


def test_a_file_that_would_not_chat_as_the_directory_does_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP", str(write_llama_cpp(tmp_path / "wrong", template_tail="!")))
    with pytest.raises(RunError, match="its chat template is not that of"):
        write_gguf(published, "demo", ["f16"], find_tools(["f16"]))
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "llama.cpp"))
    (published / "config.json").write_text(json.dumps({"architectures": ["Unknown"]}))
    with pytest.raises(RunError, match="Model Unknown is not supported"):
        write_gguf(published, "other", ["f16"], find_tools(["f16"]))
    assert not list(published.glob("*.part"))
    missing = "raise ModuleNotFoundError(\"No module named 'sentencepiece'\")"
    (tmp_path / "llama.cpp" / "convert_hf_to_gguf.py").write_text(missing)
    with pytest.raises(RunError, match=r"; pip install sentencepiece$"):
        write_gguf(published, "other", ["f16"], find_tools(["f16"]))


def test_a_modelfile_says_what_the_chat_template_says(published: Path) -> None:
    [file] = write_gguf(published, "demo", ["f16"], find_tools(["f16"]))
    made = modelfile_of(file.path, published)
    assert made.gguf == "demo-F16.gguf"
    assert made.stops[0] == "<|im_end|>"
    assert made.system == ""
    assert parse_modelfile(made.text()) == made
    chat = [
        Message(role="user", content="How old is {{ Zorbo }}?"),
        Message(role="assistant", content="31."),
        Message(role="user", content="And you?"),
    ]
    assert render_go(made.template, chat) == (
        "<|im_start|>user\nHow old is {{ Zorbo }}?<|im_end|>\n<|im_start|>assistant\n31."
        "<|im_end|>\n<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_prompt_that_the_template_puts_in_is_the_modelfiles(published: Path) -> None:
    default = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}"
        "{% endif %}"
    )
    template = published / "chat_template.jinja"
    template.write_text(default + template.read_text())
    [file] = write_gguf(published, "demo", ["f16"], find_tools(["f16"]))
    made = modelfile_of(file.path, published)
    assert made.system == "Be kind."
    assert 'SYSTEM """Be kind."""' in made.text()
    assert render_go(made.template, [Message(role="user", content="Hi")]) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_ollama_cannot_say_gets_no_modelfile(published: Path) -> None:
    template = published / "chat_template.jinja"
    template.write_text("{{ messages | length }} turns\n" + template.read_text())
    [file] = write_gguf(published, "demo", ["f16"], find_tools(["f16"]))
    with pytest.raises(NoModelfile):
        modelfile_of(file.path, published)


def test_stops_and_system_prompts_are_written_as_they_are() -> None:
    made = Modelfile(
        gguf="a.gguf", template="{{ .Content }}", stops=('a "b"\n', "<|x|>"), system="Two\nlines"
    )
    assert parse_modelfile(made.text()) == made
    with pytest.raises(NoModelfile):
        Modelfile(gguf="a", template="", stops=(), system='"""').text()
    with pytest.raises(NoModelfile, match="ADAPTER"):
        parse_modelfile("FROM ./a.gguf\nADAPTER ./b\n")


def test_the_server_of_the_source_is_found_before_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    command = find_command()
    assert command is not None
    assert command.startswith(f"{program} -m {{model}} --port {{port}}")
