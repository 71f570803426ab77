"""A base that is not the base is refused by the tensor's or the file's name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_student_render import OWN_TEMPLATES
from tiny import make_model, make_tokenizer, save_base

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.student.model import check_base, load_student, read_model

LAB = StudentConfig(base="b", device="cpu", template="lab")
OWN = StudentConfig(base="b", device="cpu", template="own")
UP = "model.layers.0.mlp.up_proj.weight"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_base(tmp_path / "base")


def change(base: Path, how: Callable[[Weights], Weights]) -> None:
    weights = load_file(base / "model.safetensors")
    save_file(how(weights), base / "model.safetensors", metadata={"format": "pt"})


def configure(base: Path, **values: object) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_up(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != UP}


def with_nan(weights: Weights) -> Weights:
    weights[UP][3, 5] = float("nan")
    return weights


def with_infinity(weights: Weights) -> Weights:
    weights[UP][0, 0] = float("-inf")
    return weights


def test_a_whole_base_is_looked_at_and_said_to_be_so(base: Path) -> None:
    num_tensors = len(load_file(base / "model.safetensors"))
    assert check_base(str(base), LAB) == f"{num_tensors} tensors, all finite; the lab template"


def test_names_without_the_models_prefix_are_the_same_names(base: Path) -> None:
    change(base, lambda w: {name.removeprefix("model."): tensor for name, tensor in w.items()})
    check_base(str(base), LAB)
    read_model(str(base))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (without_up, f"{UP} is not in the files, and training would start from random numbers"),
        (
            lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
            "lm_head.weight is not in the files, module.lm_head.weight is: save the model again "
            "with the names' 'module.' taken off",
        ),
        (with_nan, f"model.safetensors: {UP} has values that are not finite"),
        (with_infinity, f"model.safetensors: {UP} has values that are not finite"),
        (lambda w: w | {UP: w[UP].to(torch.int8)}, f"{UP} is stored as I8: quantised weights"),
        (lambda w: w | {UP: w[UP][:60].clone()}, rf"{UP} is [60, 32] in the file and [64, 32]"),
    ],
)
def test_tensors_that_are_not_the_bases_are_named(
    how: Callable[[Weights], Weights], says: str, base: Path
) -> None:
    change(base, how)
    with pytest.raises(TrainingError) as refused:
        check_base(str(base), LAB)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", [without_up, lambda w: w | {UP: w[UP][:60].clone()}])
def test_loading_makes_up_no_weights_either(how: Callable[[Weights], Weights], base: Path) -> None:
    change(base, how)
    with pytest.raises(TrainingError, match=UP):
        load_student(str(base), LAB)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_is_told_with_the_command_that_fetches(name: str, base: Path) -> None:
    (base / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2\n"
    )
    with pytest.raises(TrainingError, match=rf"{name}: a git-lfs pointer.*git lfs pull"):
        check_base(str(base), LAB)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_was_cut_is_told(kept: int, base: Path) -> None:
    file = base / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    with pytest.raises(TrainingError, match=r"fetch it again"):
        check_base(str(base), LAB)


def test_a_cut_file_is_told_with_its_bytes(base: Path) -> None:
    file = base / "model.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=f"cut off: {size - 10:,} bytes of {size:,} are there"):
        check_base(str(base), LAB)


def test_shards_must_all_be_there_and_hold_what_their_list_says(base: Path) -> None:
    model = make_model(len(make_tokenizer()))
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="30KB")
    shards = sorted(base.glob("*.safetensors"))
    assert len(shards) > 1
    check_base(str(base), LAB)
    weights = load_file(shards[1])
    lost = sorted(weights)[0]
    save_file({n: t for n, t in weights.items() if n != lost}, shards[1], {"format": "pt"})
    with pytest.raises(TrainingError, match=f"{lost} is not in {shards[1].name}, where"):
        check_base(str(base), LAB)
    shards[1].unlink()
    with pytest.raises(TrainingError, match=f"{shards[1].name}: no such file; fetch the model"):
        check_base(str(base), LAB)


def test_a_quantised_folder_is_told(base: Path) -> None:
    configure(base, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(TrainingError, match=r"its weights are quantised \(gptq\)"):
        check_base(str(base), LAB)


def test_sizes_that_differ_from_config_json_are_told(base: Path) -> None:
    configure(base, intermediate_size=48)
    with pytest.raises(TrainingError, match=r"down_proj.weight is \[32, 64\] in the file and"):
        check_base(str(base), LAB)


def save_chat_base(path: Path, *, has_rows: bool) -> Path:
    tokenizer = make_tokenizer()
    num_rows = len(tokenizer)
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    tokenizer.chat_template, tokenizer.eos_token = OWN_TEMPLATES["chatml"]
    make_model(len(tokenizer) if has_rows else num_rows).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_tokens_that_a_template_writes_need_rows(tmp_path: Path) -> None:
    there = save_chat_base(tmp_path / "there", has_rows=True)
    assert "its own template ends answers with '<|im_end|>'" in check_base(str(there), OWN)
    lacking = save_chat_base(tmp_path / "lacking", has_rows=False)
    with pytest.raises(TrainingError, match=r"tokens, so '<\|im_start\|>', '<\|im_end\|>' cannot"):
        check_base(str(lacking), OWN)
    # The lab template writes neither, and brings rows for its own tokens.
    check_base(str(lacking), LAB)


def test_a_word_without_a_row_is_told_under_any_template(tmp_path: Path) -> None:
    path = save_base(tmp_path / "base")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["photosynthesis"])
    tokenizer.save_pretrained(path)
    with pytest.raises(TrainingError, match="so 'photosynthesis' cannot be looked up"):
        check_base(str(path), LAB)


def test_no_row_is_added_for_padding_under_a_bases_own_template(tmp_path: Path) -> None:
    path = save_chat_base(tmp_path / "base", has_rows=True)
    num_rows = read_model(str(path)).model.get_input_embeddings().weight.shape[0]
    student = load_student(str(path), OWN)
    assert student.model.get_input_embeddings().weight.shape[0] == num_rows
    assert student.template.pad_id == student.template.stop_id
