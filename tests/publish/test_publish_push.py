"""Given on: to a hub that a small server plays, to a converter, and under which licence."""

import hashlib
from pathlib import Path

import pytest
from hub import hub

from feldspar.errors import RunError
from feldspar.publish.licence import find_licence, licence_of_base
from feldspar.publish.push import check_hub, push_to_hub
from feldspar.text.licence_names import short_name


def test_the_hub_has_every_file_and_saw_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# model\n")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(200)))
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        monkeypatch.setenv("HF_TOKEN", "right")
        assert push_to_hub(tmp_path, "someone/model") == f"{played.url}/someone/model/commit/" + (
            "1" * 40
        )
        expected = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        assert {name: played.files[name] for name in expected} == expected
        assert played.tokens == {"Bearer right"}
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(RunError, match="HF_TOKEN"):
            push_to_hub(tmp_path, "someone/model")


def test_an_earlier_models_weights_do_not_stay_beside_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would load the single file and not the shards."""
    monkeypatch.setenv("HF_TOKEN", "right")
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in (
        (first, ("model.safetensors", "m-F16.gguf", "m-F16.Modelfile", "adapter/a.safetensors")),
        (second, ("model-1.safetensors", "model.safetensors.index.json")),
    ):
        for name in (*names, "README.md"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{folder.name} {name}")
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        push_to_hub(first, "someone/model")
        played.files["NOTES.md"] = b"of the owner"
        push_to_hub(second, "someone/model")
        assert set(played.files) - {".gitattributes"} == {
            *("README.md", "model-1.safetensors", "model.safetensors.index.json", "NOTES.md")
        }
        assert played.files["README.md"] == b"second README.md"


@pytest.mark.parametrize(
    ("stated", "base", "data", "name", "warns"),
    [
        ("", "apache-2.0", ["Apache-2.0", "CC BY 4.0", ""], "apache-2.0", ""),
        ("", "apache-2.0", ["CC-BY-SA-4.0"], "cc-by-sa-4.0", ""),
        ("", "apache-2.0", ["CC-BY-SA-4.0", "GPL-3.0"], "apache-2.0", "gpl-3.0 does not go with"),
        ("", "llama3", ["CC-BY-SA-4.0"], "llama3", "cc-by-sa-4.0 does not go with"),
        ("cc-by-sa-4.0", "mit", ["CC BY-SA 4.0"], "cc-by-sa-4.0", ""),
        ("mit", "cc-by-nc-4.0", [], "mit", "the base is under cc-by-nc-4.0"),
        ("apache-2.0", "llama2", [], "apache-2.0", "the base is under llama2"),
        ("", "", ["MIT"], "unknown", "set publish.licence"),
        ("cc-by-nc-4.0", "", ["CC BY-NC 4.0", "CC BY-ND 4.0"], "cc-by-nc-4.0", "cc-by-nd-4.0"),
        ("", "apache-2.0", ["CC BY-ND 4.0"], "apache-2.0", "data under cc-by-nd-4.0 does not go"),
        ("", "Apache License, Version 2.0", ["GNU GPL v3"], "gpl-3.0", ""),
    ],
)
def test_the_licence_follows_base_and_data(
    stated: str, base: str, data: list[str], name: str, warns: str
) -> None:
    found = find_licence(stated, base, data)
    assert found.name == name
    assert bool(found.warnings) == bool(warns)
    assert warns in "".join(found.warnings)


def test_the_bases_licence_is_read_from_its_readme(tmp_path: Path) -> None:
    assert licence_of_base(str(tmp_path)) == ""
    for front, found in (
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# base\n", "apache-2.0"),
        ("\ufeff---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: our-own\n---\n", "our-own"),
        ("---\nlicense: [cc-by-nc-4.0]\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: [mit, cc-by-nc-4.0]\n---\n", "mit and cc-by-nc-4.0"),
    ):
        (tmp_path / "README.md").write_text(front, encoding="utf-8")
        assert licence_of_base(str(tmp_path)) == found


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "cc-by-sa-4.0"),
        ("Attribution-NonCommercial-NoDerivs 4.0", "cc-by-nc-nd-4.0"),
        ("Creative Commons Zero v1.0 Universal", "cc0-1.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache2", "apache-2.0"),
        ("GNU Lesser General Public License, version 2.1", "lgpl-2.1"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("The MIT License", "mit"),
        ("BSD 3-Clause License", "bsd-3-clause"),
        ("Llama 3.1", "llama3.1"),
        ("llama3", "llama3"),
        ("our own", "our-own"),
    ],
)
def test_a_licence_is_known_however_it_is_written(written: str, name: str) -> None:
    assert short_name(written) == name


def test_the_hub_is_asked_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        check_hub("someone/model")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(RunError, match=r"^someone/model: not pushed: .*HF_TOKEN"):
            check_hub("someone/model")
    # Nobody is there any more.
    with pytest.raises(RunError, match=r"^someone/model: not pushed: .*reachable"):
        check_hub("someone/model")
    for name in ("model", "../x", "a/b/c", ""):
        with pytest.raises(RunError, match="not pushed"):
            check_hub(name)


# The hub's client hands its HTTP library a file in a way that this one deprecates.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_large_files_are_sent_once_however_often_it_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's own protocol for large files, where its newer one is not spoken.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "right")
    shards = {f"model-{n}.safetensors": bytes([n]) * 50_000 for n in (1, 2, 3)}
    for name, content in shards.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("# model\n")
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "mmlu.yaml").write_text("[]\n")
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        played.refused = {hashlib.sha256(shards["model-2.safetensors"]).hexdigest()}
        with pytest.raises(RunError, match=r"not pushed: .*model-2"):
            push_to_hub(tmp_path, "someone/model")
        assert not played.files
        sent = list(played.uploads)
        played.refused = set()
        push_to_hub(tmp_path, "someone/model")
        again = played.uploads[len(sent) :]
        assert hashlib.sha256(shards["model-2.safetensors"]).hexdigest() in again
        assert not set(again) & set(sent)
        assert {n: played.files[n] for n in shards} == shards
        assert played.files[".eval_results/mmlu.yaml"] == b"[]\n"
        assert "private" not in str(played.made)
        push_to_hub(tmp_path, "someone/model", private=True)
        assert "private" in str(played.made)
