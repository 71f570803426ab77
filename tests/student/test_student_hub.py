"""Models from the hub, which a small server plays: by revision, by token, known by their commit."""

from pathlib import Path

import pytest
from hub import Hub, hub
from tiny import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from feldspar.config import Recipe
from feldspar.errors import TrainingError
from feldspar.prepare import look_ahead, pin_base, settled
from feldspar.publish.licence import licence_of_base
from feldspar.student.hub import HubName, commit_of, hub_name, note_commit, pinned
from feldspar.student.model import base_checkpoint, find_model


def _model(folder: Path, hidden_size: int) -> dict[str, bytes]:
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A hub with two commits of a private model; `main` is the later one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with hub() as found:
        found.add(_model(tmp_path / "first", 16), "v1.0")
        found.add(_model(tmp_path / "second", 32), "main")
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", "right")
        yield found


def test_a_revision_is_fetched_and_known_by_its_commit(played: Hub) -> None:
    first, second = played.revisions["v1.0"], played.revisions["main"]
    assert commit_of(find_model("someone/model@v1.0")) == first
    assert commit_of(find_model("someone/model")) == second
    by_commit = base_checkpoint(f"someone/model@{first}")
    assert by_commit.digest == base_checkpoint("someone/model@v1.0").digest
    assert by_commit.digest != base_checkpoint("someone/model").digest
    assert played.tokens == {"Bearer right"}
    assert licence_of_base("someone/model@v1.0") == "cc-by-nc-4.0"


def test_a_run_goes_on_with_the_commit_it_began_with(played: Hub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert pinned("someone/model", run) == "someone/model"
    began = find_model("someone/model")
    note_commit("someone/model", began, run)
    later = played.add(_model(tmp_path / "third", 64), "main")
    assert commit_of(find_model("someone/model")) == later
    assert find_model(pinned("someone/model", run)) == began
    note_commit("someone/model", find_model("someone/model"), run)
    assert pinned("someone/model", run) == f"someone/model@{began.name}"


def test_the_recipe_of_a_run_has_the_commit_and_a_later_run_finds_it(
    played: Hub, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    named = Recipe.model_validate({
        "taxonomy": {"path": "t"},
        "student": {"base": "someone/model", "template": "lab"},
    })  # fmt: skip
    prepared = look_ahead(pin_base(named, run), "phases", run)
    began = f"someone/model@{played.revisions['main']}"
    assert settled(named, prepared, run).student.base == began
    prepared.note(run)
    played.add(_model(tmp_path / "third", 64), "main")
    assert pin_base(named, run).student.base == began
    again = look_ahead(pin_base(named, run), "phases", run)
    again.note(run)
    assert (again.base, again.student.base) == (prepared.base, began)


def test_what_the_hub_does_not_show_is_said_with_the_cure(
    played: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="no such branch, tag or commit of someone/model"):
        find_model("someone/model@v9")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(TrainingError, match=r"private or gated, HF_TOKEN in the environment"):
        find_model("someone/model@v1.0")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("owner/name", HubName("owner/name")),
        ("owner/name@v1.0", HubName("owner/name", "v1.0")),
        ("owner/name@refs/pr/1", HubName("owner/name", "refs/pr/1")),
        ("owner/name@", None),
        ("./name", None),
        ("/a/b", None),
        ("package:a==1/b.gguf", None),
        ("a/b/c", None),
    ],
)
def test_what_is_a_name_on_the_hub(text: str, found: HubName | None) -> None:
    assert hub_name(text) == found
