"""Leaves are written in a form, and nothing is lost or written elsewhere."""

import base64
import re
import unicodedata
from html import unescape
from pathlib import Path

import pytest
from studio_client import Client, enter, in_studio, serving_one_reply
from yarl import URL

from feldspar.errors import TaxonomyError
from feldspar.studio.leaf_files import MAX_UPLOAD_BYTES, LeafFiles, digest_of
from feldspar.studio.project import Project
from feldspar.taxonomy.editing import FormExample, FormPair, LeafForm

HOSTILE = "<script>alert(1)</script>"
TOWN = "# Kirby\n\nKirby lies in the north.\n\nIts baker is called Zorbo.\n"
LEAF = {"taxonomy": "taxonomy", "path": "knowledge/town/kirby"}
QNA = """\
# Of the town.
version: 3
created_by: anna
domain: towns
document_outline: Kirby
seed_examples:
  - context: Kirby lies in the north.
    questions_and_answers:
      # A first one.
      - question: Where is Kirby?
        answer: In the north.
document:
  path: documents
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    leaf = tmp_path / "taxonomy" / "knowledge" / "town" / "kirby"
    (leaf / "documents").mkdir(parents=True)
    (leaf / "documents" / "town.md").write_text(TOWN)
    (leaf / "qna.yaml").write_text(QNA)
    return tmp_path


@pytest.fixture
def files(project: Path) -> LeafFiles:
    return LeafFiles(Project(project / "runs"))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "path",
    ["../runs/x", "knowledge", "knowledge/../../x", "elsewhere/x", "knowledge/.git", "knowledge//x",
     "knowledge/a\nb", "/etc/knowledge/x", "knowledge/" + "x" * 201, "knowledge/a\\b"],
)  # fmt: skip
def test_no_leaf_lies_outside_its_taxonomy(files: LeafFiles, path: str) -> None:
    with pytest.raises(TaxonomyError):
        files.place("taxonomy", path)


@pytest.mark.parametrize("name", ["Q&A", "c#", "town (old)", unicodedata.normalize("NFD", "Bär")])
def test_a_leaf_that_is_there_is_opened_whatever_its_name(project: Path, name: str) -> None:
    path = f"knowledge/{name}/100 %"
    folder = project / "taxonomy" / path
    folder.mkdir(parents=True)
    (folder / "qna.yaml").write_text(QNA)

    async def use(client: Client) -> None:
        await enter(client)
        listed = await (await client.get("/taxonomy")).text()
        [link] = [link for link in re.findall(r'href="(/leaf[^"]*)"', listed) if "%25" in link]
        text = await (await client.get(URL(unescape(link), encoded=True))).text()
        assert "Where is Kirby?" in text

    in_studio(project / "runs", use, reviewer="anna")


def test_a_leaf_that_is_there_is_opened_where_it_lies(files: LeafFiles) -> None:
    [taxonomy] = files.taxonomies()
    written = files._project.folder / taxonomy / "part/knowledge/quay/qna.yaml"
    written.parent.mkdir(parents=True)
    written.write_text(QNA)
    assert "knowledge/quay" in files.leaves()[0].paths
    place = files.place(taxonomy, "knowledge/quay")
    assert place.file == written
    assert place.is_knowledge


def test_new_names_are_composed(files: LeafFiles) -> None:
    apart = unicodedata.normalize("NFD", "Bär")
    assert files.place("taxonomy", f"knowledge/{apart} ").path == "knowledge/Bär"
    for name in (f"{apart}.md", "Bericht (1).md", "हिन्दी.md"):
        written = files.add_document(files.place(**LEAF), name, encoded("text"))
        assert written.name == unicodedata.normalize("NFC", name)


def test_what_the_disk_refuses_is_told_as_text(project: Path) -> None:
    (project / "taxonomy" / "knowledge" / "flat").write_text("a file")
    body = {"taxonomy": "taxonomy", "path": "knowledge/flat/x", "examples": [], "digest": ""}

    async def use(client: Client) -> None:
        await enter(client)
        reply = await client.post("/leaf/save", json=body)
        assert (reply.status, reply.content_type) == (500, "text/plain")
        assert (await reply.text()).startswith("Not a directory (")

    in_studio(project / "runs", use, reviewer="anna")


def test_a_taxonomy_is_one_that_the_project_names(files: LeafFiles, project: Path) -> None:
    with pytest.raises(TaxonomyError, match="no taxonomy"):
        files.place("runs", "knowledge/x")
    (project / "r.toml").write_text("[taxonomy]\npath = 'mine'\n[student]\nbase = 'b'\n")
    (project / "s.toml").write_text("[taxonomy]\npath = '../away'\n[student]\nbase = 'b'\n")
    assert files.taxonomies() == ["taxonomy", "mine"]
    (project / "taxonomy" / "knowledge" / "out").symlink_to(project.parent)
    with pytest.raises(TaxonomyError, match="leads out"):
        files.place("taxonomy", "knowledge/out/x")


@pytest.mark.parametrize(
    ("name", "why"),
    [("../x.md", "no name"), (".x.md", "no name"), ("x.exe", "are read"), ("a/b.md", "no name"),
     ("x.md", "another document")],
)  # fmt: skip
def test_a_document_that_cannot_be_kept_is_refused(
    files: LeafFiles, project: Path, name: str, why: str
) -> None:
    place = files.place(**LEAF)
    (place.file.parent / "documents" / "x.md").write_text("mine")
    before = sorted(project.rglob("*"))
    with pytest.raises(TaxonomyError, match=why):
        files.add_document(place, name, encoded("other"))
    assert sorted(project.rglob("*")) == before


def test_a_document_is_bounded_and_arrives_whole(files: LeafFiles) -> None:
    place = files.place(**LEAF)
    with pytest.raises(TaxonomyError, match="larger than"):
        files.add_document(place, "big.md", encoded("x" * (MAX_UPLOAD_BYTES + 1)))
    with pytest.raises(TaxonomyError, match="arrive whole"):
        files.add_document(place, "x.md", "not base64!")
    path = files.add_document(place, "x.md", encoded("é"))
    assert path.read_text() == "é"


def test_findings_come_to_their_fields_and_passages_know_their_seeds(files: LeafFiles) -> None:
    form = LeafForm(
        created_by="anna",
        domain="towns",
        description="Kirby",
        examples=(
            FormExample(
                context="Kirby lies in the north.",
                pairs=(
                    FormPair(question="Where is Kirby?", answer="In the north.", old=0),
                    FormPair(question="Who bakes?", answer=""),
                ),
                old=0,
            ),
        ),
    )
    checked = files.check(files.place(**LEAF), form)
    found = {f.finding.code: f.field for f in checked.findings}
    assert found["FT021"] == "example-0-pair-1"
    assert [p.is_covered for p in checked.passages] == [True]
    assert checked.share_covered == 1.0
    assert "+      - question: Who bakes?" in checked.diff
    assert "# Of the town." in checked.text


def test_what_changed_on_disk_meanwhile_is_not_overwritten(files: LeafFiles) -> None:
    place = files.place(**LEAF)
    form, digest = files.form(place), digest_of(files.text(place))
    place.file.write_text(QNA + "# more\n")
    with pytest.raises(TaxonomyError, match="changed on disk"):
        files.save(place, form, digest)
    assert place.file.read_text() == QNA + "# more\n"
    assert files.save(place, form, digest_of(files.text(place))) == digest_of(QNA + "# more\n")
    # A new leaf that somebody else wrote meanwhile is such a change too.
    with pytest.raises(TaxonomyError, match="changed on disk"):
        files.save(place, form, "")


def test_a_leaf_is_written_from_the_page(project: Path) -> None:
    leaf = {"taxonomy": "taxonomy", "path": "knowledge/town/new"}

    async def use(client: Client) -> None:
        await enter(client)
        text = await (await client.get("/leaf", params=leaf)).text()
        assert "not saved yet" in text
        sent = {**leaf, "name": "town.md", "content": encoded(TOWN + HOSTILE)}
        told = await (await client.post("/leaf/documents", json=sent)).json()
        assert "no seed yet" in told["html"]
        assert "<script>" not in told["html"]
        pair = {"question": f"Who {HOSTILE}?", "answer": "Zorbo."}
        example = {"context": "Its baker is called Zorbo.", "pairs": [pair]}
        form = {
            **leaf,
            "created_by": "anna",
            "description": "Kirby",
            "examples": [example],
            "digest": "",
        }
        told = await (await client.post("/leaf/check", json=form)).json()
        assert len(told["covered"]) == 1
        assert not [f for f in told["findings"] if f["severity"] == "error"]
        assert (await client.post("/leaf/save", json=form)).status == 200
        reply = await client.post("/leaf/save", json=form)
        assert reply.status == 409
        assert "changed on disk" in await reply.text()
        for page in ("/taxonomy", "/leaf?taxonomy=taxonomy&path=knowledge/town/new"):
            text = await (await client.get(page)).text()
            assert "<script>alert" not in text
            assert " style=" not in text
        assert (await client.get("/leaf?taxonomy=taxonomy&path=../x")).status == 404
        assert (await client.post("/leaf/save", json={**form, "more": 1})).status == 422
        assert (await client.post("/leaf/save", data=b"{}")).status == 415

    in_studio(project / "runs", use, reviewer="anna")
    written = (project / "taxonomy" / "knowledge" / "town" / "new" / "qna.yaml").read_text()
    assert written.startswith("version: 3\ncreated_by: anna\n")


def test_attribution_is_a_field_with_its_findings_and_is_saved_beside(
    files: LeafFiles, project: Path
) -> None:
    place = files.place(**LEAF)
    form, said = files.form(place), "Title of work: Kirby\nLicense of the work: CC0-1.0"
    lacking = files.check(place, form)
    assert ("attribution", "FT045") in [(f.field, f.finding.code) for f in lacking.findings]
    checked = files.check(place, form, said)
    assert "attribution" not in [f.field for f in checked.findings]
    assert "+License of the work: CC0-1.0" in checked.diff
    digest = files.save(place, form, files.digest(place), said)
    assert (place.attribution).read_text() == said + "\n"
    assert place.file.read_text() == QNA
    # The other form was made from other files, and None leaves it alone.
    with pytest.raises(TaxonomyError, match="changed on disk"):
        files.save(place, form, digest_of(QNA), "mine")
    assert files.save(place, form, digest) == digest
    files.save(place, form, digest, "")
    assert not place.attribution.exists()


def test_a_teacher_proposes_seeds_after_its_cost_was_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(project / "cache"))
    with serving_one_reply(f"Question: Who bakes {HOSTILE}?\nAnswer: Zorbo.") as (url, asked):
        (project / "r.toml").write_text(
            f"[taxonomy]\npath = 'taxonomy'\n[student]\nbase = 'b'\n"
            f"[teacher]\nendpoint = '{url}'\nprompt_price = 1000.0\ncompletion_price = 2000.0\n"
        )

        async def use(client: Client) -> None:
            await enter(client)
            text = await (await client.get("/leaf", params=LEAF)).text()
            assert "1 call: about 94 tokens read" in text
            assert "at most 800 written; at most <b>1.6940</b>" in text
            assert asked == []
            told = await client.post("/leaf/drafts", json={**LEAF, "recipe": "r.toml"})
            (draft,) = (await told.json())["drafts"]
            assert (draft["question"], draft["answer"]) == (f"Who bakes {HOSTILE}?", "Zorbo.")
            assert "Its baker is called Zorbo." in draft["context"]
            assert len(asked) == 1
            # Nothing was written, and the same is not paid for twice.
            await client.post("/leaf/drafts", json={**LEAF, "recipe": "r.toml"})
            assert len(asked) == 1
            refused = await client.post("/leaf/drafts", json={**LEAF, "recipe": "../r.toml"})
            assert refused.status == 409

        in_studio(project / "runs", use, reviewer="anna")

        async def read(client: Client) -> None:
            await enter(client)
            told = await client.post("/leaf/drafts", json={**LEAF, "recipe": "r.toml"})
            assert told.status == 403
            assert "propose" not in await (await client.get("/leaf", params=LEAF)).text()

        in_studio(project / "runs", read, read_only=True, reviewer="anna")
    place = project / "taxonomy" / "knowledge" / "town" / "kirby"
    assert sorted(p.name for p in place.iterdir()) == ["documents", "qna.yaml"]
    assert (place / "qna.yaml").read_text() == QNA


def test_a_studio_that_only_reads_writes_no_leaf(project: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        form = {**LEAF, "examples": [], "digest": digest_of(QNA)}
        assert (await client.post("/leaf/save", json=form)).status == 403
        sent = {**LEAF, "name": "x.md", "content": ""}
        assert (await client.post("/leaf/documents", json=sent)).status == 403
        text = await (await client.get("/leaf", params=LEAF)).text()
        assert "only reads" in text
        assert "leaf-form" not in text

    in_studio(project / "runs", use, read_only=True, reviewer="anna")
    assert not (
        project / "taxonomy" / "knowledge" / "town" / "kirby" / "documents" / "x.md"
    ).exists()
