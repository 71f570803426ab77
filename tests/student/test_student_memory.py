"""Foretold memory moves as it must; benchmarks/memory.py sets it beside what is taken."""

import json
from pathlib import Path

import pytest

from feldspar.config import ArchitectureConfig, LoraConfig, StudentConfig, TrainConfig
from feldspar.records import MemoryEstimate
from feldspar.student.training.activation_checkpointing import foresees_checkpointing
from feldspar.student.training.memory import Method, estimate_memory, memory_ways, shard_that_fits

GIB = 2**30
MISTRAL = ArchitectureConfig(
    hidden_size=4096,
    num_layers=32,
    intermediate_size=14336,
    vocabulary=32000,
    num_heads=32,
    num_kv_heads=8,
)
STUDENT = StudentConfig(base="b")


def ways(train: TrainConfig, num_gpus: int, gibibytes: float | None) -> list[MemoryEstimate]:
    memory = None if gibibytes is None else int(gibibytes * GIB)
    return memory_ways(MISTRAL, train, STUDENT, num_gpus, memory)


def test_weights_gradients_and_moments_are_sixteen_bytes_a_parameter() -> None:
    found = estimate_memory(MISTRAL, Method(), 4096)
    held = found.weights + found.gradients + found.optimizer
    assert held == 16 * MISTRAL.num_parameters
    small = estimate_memory(MISTRAL, Method(states="bfloat16"), 4096)
    assert found.total - small.total == 4 * MISTRAL.num_parameters


def test_activations_grow_with_tokens_and_shrink_when_computed_again() -> None:
    one, two, four = (estimate_memory(MISTRAL, Method(), n).activations for n in (1024, 2048, 4096))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    again = estimate_memory(MISTRAL, Method(activation_checkpointing=True), 4096)
    assert again.activations < 0.5 * four
    assert again.weights == estimate_memory(MISTRAL, Method(), 4096).weights


def test_recomputing_is_chosen_where_all_does_not_fit() -> None:
    train = TrainConfig(tokens_per_micro_batch=8192)
    assert ways(train, 1, 1000)[0].options == ()
    assert ways(train, 1, 139)[0].options == ("recompute",)
    never = train.model_copy(update={"recompute": "never"})
    assert ways(never, 1, 139)[0].options == ()


@pytest.mark.parametrize(
    ("gibibytes", "options"), [(79, ("shard layer", "recompute")), (220, ("shard step",))]
)
def test_several_recompute_as_it_was_predicted(gibibytes, options, tmp_path: Path) -> None:
    train = TrainConfig()
    assert ways(train, 8, gibibytes)[0].options == options
    told = {"model_type": "mistral", "num_hidden_layers": 32, "num_attention_heads": 32}
    told |= {"hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 32000}
    (tmp_path / "config.json").write_text(json.dumps(told | {"num_key_value_heads": 8}))
    shard = shard_that_fits(*2 * (MISTRAL.num_parameters,), 8, 2, gibibytes * GIB)
    method = Method(shard=shard, num_shards=8)
    given = train.tokens_per_micro_batch, gibibytes * GIB
    assert foresees_checkpointing(str(tmp_path), method, *given) is ("recompute" in options)


def test_of_a_model_that_cannot_be_counted_activations_are_kept(tmp_path: Path, caplog) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    assert not foresees_checkpointing(str(tmp_path), Method(shard="step", num_shards=2), 10**9, GIB)
    assert 'set train.recompute = "always"' in caplog.text


def test_each_of_eight_holds_an_eighth_and_one_layer_whole() -> None:
    train = TrainConfig(tokens_per_micro_batch=4096, recompute="never")
    [own, *others] = ways(train, 8, 79)
    assert own.options == ("shard layer",)
    assert own.weights == MISTRAL.num_parameters * 4 // 8
    assert len({other.options for other in others}) == len(others)
    assert all(other.options != own.options for other in others)
    # On a larger GPU weights stay whole through a step.
    assert ways(train, 8, 180)[0].options == ("shard step",)


def test_low_rank_training_holds_no_states_for_frozen_weights() -> None:
    student = STUDENT.model_copy(update={"lora": LoraConfig(rank=16)})
    train = TrainConfig(tokens_per_micro_batch=2048)
    one, eight = (memory_ways(MISTRAL, train, student, num, 79 * GIB)[0] for num in (1, 8))
    assert one.options == ("LoRA rank 16",)
    # With a base's own template embeddings and head are frozen too.
    own = memory_ways(MISTRAL, train, student.model_copy(update={"template": "own"}), 1, 79 * GIB)
    assert own[0].optimizer < 0.5 * one.optimizer
    assert one.optimizer < 0.1 * 8 * MISTRAL.num_parameters
    assert one.weights > 4 * MISTRAL.num_parameters
    # Without gradients of what is frozen, weights may stay whole on a smaller GPU.
    assert eight.options == ("LoRA rank 16", "shard step")
    assert eight.total < one.total
