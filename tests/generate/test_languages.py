"""A Spanish and a Japanese leaf from their files to exam scores, with a teacher's stored replies.

Every step's right value is written down here: what a chunk is, what falls and why, what an exam
accepts.
"""
# Full-width letters are what is tested here.
# ruff: noqa: RUF001

from __future__ import annotations

from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher
from test_samples import TEACHER

from feldspar.config import GenerateConfig, TaxonomyConfig
from feldspar.generate import generate_samples, make_exams
from feldspar.generate.final_answers import accepted_final
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.taxonomy.documents.chunks import cover, cut_chunks
from feldspar.teacher import Journal, open_teacher
from feldspar.text import normalise as words_of
from feldspar.text import num_words_said, numbers_and_names
from feldspar.text.match import is_right, normalise
from feldspar.tokens.count import count_words, guess_tokens

SPANISH = """\
version: 3
created_by: alguien
domain: geografía
task_description: Enseña los hechos del pueblo de Tarn.
seed_examples:
  - context: El faro de Tarn mide treinta metros.
    questions_and_answers:
      - {question: "¿Cuánto mide el faro de Tarn?", answer: "Mide treinta metros."}
      - {question: "¿Qué hay en Tarn?", answer: "Hay un faro."}
      - {question: "¿De qué pueblo es el faro?", answer: "Es de Tarn."}
document: {path: documents, patterns: ["*.md"]}
"""
SPANISH_DOCUMENT = """\
# Tarn

El faro de Tarn mide treinta metros. La farera se llama Inés Ulloa.

¡Atención! El puente de Tarn es de piedra. ¿Quién lo construyó? Lo construyó Martín Peñalba.
"""
JAPANESE = """\
version: 3
created_by: 誰か
domain: 地理
task_description: タルンの町の事実を教える。
seed_examples:
  - context: タルンの灯台の高さは三十メートルです。
    questions_and_answers:
      - {question: タルンの灯台の高さは何メートルですか。, answer: 三十メートルです。}
      - {question: タルンには何がありますか。, answer: 灯台があります。}
      - {question: 灯台はどの町にありますか。, answer: タルンです。}
document: {path: documents, patterns: ["*.md"]}
"""
JAPANESE_DOCUMENT = """\
# タルン

タルンの灯台の高さは三十メートルです。灯台守の名前は佐々木イネスです。

「人々は橋を渡る。」と言われる。タルンの橋は石でできています。橋を作った人は山田マルコです。
"""

PAIRS = {
    "knowledge/es": [
        ("¿Cómo se llama la farera de Tarn?", "Se llama Inés Ulloa."),
        # The same again: other opening, same words and answer.
        ("Dime cómo se llama la farera de Tarn.", "¡Se llama Inés Ulloa!"),
        ("¿De qué es el puente de Tarn?", "El puente de Tarn es de piedra."),
        # English, from a teacher that fell back into it.
        ("Who built the bridge of Tarn, and what is it made of?", "It was built by Martín."),
    ],
    "knowledge/ja": [
        ("タルンの灯台守の名前は何ですか。", "灯台守の名前は佐々木イネスです。"),
        ("タルンの灯台守の名前は何でしょうか?", "灯台守の名前は佐々木イネスです"),
        ("タルンの橋を作った人は誰ですか。", "橋を作った人は山田マルコです。"),
        ("Who built the bridge?", "The bridge of the town was built by Marco."),
    ],
}
EXAM_PAIRS = {
    "knowledge/es": [("¿Quién construyó el puente?", "El constructor es Martín Peñalba.")],
    "knowledge/ja": [("橋は何でできていますか。", "橋の材料は石です。")],
}


def answer(call: Call) -> str:
    """Stored pairs, by the language of the document; exams draw from the upper half of draws."""
    if call.stage.startswith("judge"):
        return "Explanation: 文書にある。\n**Verdict：** YES"
    place = "knowledge/ja" if "灯台" in call.section("Document") else "knowledge/es"
    pairs = (EXAM_PAIRS if call.body["seed"] >= 2**19 else PAIRS)[place]
    return "\n".join(f"[Question]\n{q}\n[Answer]\n{a}\n[End]" for q, a in pairs)


CONFIG = GenerateConfig(calls_per_chunk=1, pairs_per_call=4, exam_items=1)


@pytest.fixture
def leaves(tmp_path: Path) -> list[Leaf]:
    texts = {"es": (SPANISH, SPANISH_DOCUMENT), "ja": (JAPANESE, JAPANESE_DOCUMENT)}
    for name, (qna, document) in texts.items():
        folder = tmp_path / "taxonomy" / "knowledge" / name
        (folder / "documents").mkdir(parents=True)
        (folder / "qna.yaml").write_text(qna, encoding="utf-8")
        (folder / "documents" / "text.md").write_text(document, encoding="utf-8")
    config = TaxonomyConfig(path=str(tmp_path / "taxonomy"), exam_fraction=0.0, chunk_tokens=100)
    return list(read_taxonomy(config))


@pytest.fixture
def written(leaves: list[Leaf], tmp_path: Path) -> tuple[list[ExamItem], list[Sample]]:
    with FakeTeacher(answer) as server, Journal(tmp_path / "journal") as journal:
        teacher = open_teacher(TEACHER, server.url, journal)
        workspace = Workspace(folder=tmp_path)
        exams = list(make_exams(workspace, leaves, CONFIG, teacher=teacher, judge=teacher, seed=0))
        samples = list(
            generate_samples(
                workspace,
                leaves,
                CONFIG,
                teacher=teacher,
                judge=teacher,
                avoid=exams,
                seed=0,
            )
        )
    return exams, samples


def test_leaves_and_their_chunks_are_read_as_they_are(leaves: list[Leaf]) -> None:
    spanish, japanese = leaves
    assert spanish.seeds[0].question == "¿Cuánto mide el faro de Tarn?"
    assert [chunk.text for chunk in spanish.chunks] == [SPANISH_DOCUMENT.strip()]
    assert [chunk.text for chunk in japanese.chunks] == [JAPANESE_DOCUMENT.strip()]
    assert spanish.chunks[0].num_tokens == 30
    # Each character is a word where no tokenizer is named.
    assert japanese.chunks[0].num_tokens == 85


def test_a_japanese_document_is_cut_between_sentences() -> None:
    chunks = cut_chunks(JAPANESE_DOCUMENT, "d", 40, count_words)
    assert [chunk.text for chunk in chunks] == [
        "# タルン\n\nタルンの灯台の高さは三十メートルです。灯台守の名前は佐々木イネスです。",
        "「人々は橋を渡る。」と言われる。タルンの橋は石でできています。",
        "橋を作った人は山田マルコです。",
    ]
    long = "山と川と海と空を見て、町の人々は橋を渡り、灯台へ行き、船を待っていた"
    assert [chunk.text for chunk in cut_chunks(long, "d", 20, count_words)] == [
        "山と川と海と空を見て、",
        "町の人々は橋を渡り、",
        "灯台へ行き、船を待っていた",
    ]


def test_a_context_is_found_across_the_lines_of_a_japanese_document(leaves: list[Leaf]) -> None:
    text = JAPANESE_DOCUMENT.replace("高さは三十", "高さは\n三十")
    chunks = cut_chunks(text, "d", 100, count_words)
    found = cover([text], chunks, leaves[1].seeds)
    assert found.torn == ()
    assert found.num_words == found.num_covered == 85


def test_what_falls_and_why(written: tuple[list[ExamItem], list[Sample]]) -> None:
    _, samples = written
    told = {(s.leaf, s.question): str(s.rejected_because).partition(" (")[0] for s in samples}
    es, ja = PAIRS["knowledge/es"], PAIRS["knowledge/ja"]
    assert told == {
        ("knowledge/es", es[0][0]): "None",
        ("knowledge/es", es[1][0]): "near-duplicate: same answer",
        ("knowledge/es", es[2][0]): "None",
        ("knowledge/es", es[3][0]): "language: another than the seeds'",
        ("knowledge/ja", ja[0][0]): "None",
        ("knowledge/ja", ja[1][0]): "near-duplicate: same answer",
        ("knowledge/ja", ja[2][0]): "None",
        ("knowledge/ja", ja[3][0]): "language: another than the seeds'",
    }


def test_exams_accept_what_is_right_in_either_form(
    written: tuple[list[ExamItem], list[Sample]],
) -> None:
    exams, _ = written
    spanish, japanese = sorted(exams, key=lambda item: item.leaf)
    assert (spanish.accepted, japanese.accepted) == (("Martín Peñalba",), ("石",))
    assert spanish.match == japanese.match == "final"
    for text in ("Martín Peñalba", "¡Martín Peñalba!", "Lo construyó Martín Peñalba."):
        assert is_right(text, spanish)
    for text in ("石", "石です。", "橋は石だ", "材料は石でした。", "「石」"):
        assert is_right(text, japanese)
    for text in ("木です。", "石ではありません。", "石橋"):
        assert not is_right(text, japanese)
    assert not is_right("Martín", spanish)


@pytest.mark.parametrize(
    ("question", "said", "final"),
    [
        ("¿Dónde vive Zorbo?", "Zorbo vive en Tarn.", "Tarn"),
        ("¿Cuál es la capital?", "La capital es Ciudad de Tarn.", "Ciudad de Tarn"),
        ("¿Quién es mayor, Zorbo o Mirad?", "Zorbo es mayor.", "Zorbo es mayor"),
        ("¿Está en Tarn?", "No, no está en Tarn.", "No, no está en Tarn"),
        ("首都はどこですか。", "首都は東京です。", "東京"),
        ("誰が年上ですか。", "ゾルボが年上です。", "ゾルボが年上です"),
        ("合計はいくつですか。", "合計＝１２", "１２"),
        ("どこに住んでいますか。", "タルンに住んでいます。", "タルンに住んでいます"),
    ],
)
def test_the_end_that_tells(question: str, said: str, final: str) -> None:
    assert accepted_final(question, said, "knowledge") == final


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("¿Es TARN?", ["es", "tarn"]),
        ("１，０００円。", ["1000", "円"]),
        ("Ｘ．ｂ", ["x", "b"]),
        ("ﾀﾙﾝです", ["タ", "ル", "ン", "で", "す"]),
        ("Me\u0301xico", ["méxico"]),
    ],
)
def test_form_does_not_count_in_an_exam(text: str, words: list[str]) -> None:
    assert normalise(text) == words


def test_words_of_mixed_texts() -> None:
    assert words_of("ZORBOの人々、「１２」") == "zorbo の 人 々 12"
    assert numbers_and_names("ゾルボはどこに住んでいますか") == ("ゾ", "ボ", "ル", "住")
    assert numbers_and_names("¿Dónde vive Zorbo?") == ("zorbo",)
    assert numbers_and_names("Escribe dónde vive Zorbo") == ("zorbo",)
    assert numbers_and_names("Is Los Angeles far from El Paso?") == ("angeles", "el", "los", "paso")
    assert num_words_said("石でできている") == 4
    assert guess_tokens("abcd efg") == 2
    assert guess_tokens("石の橋 abcd") == 3 + 2


def test_thirteen_characters_in_a_row_are_no_benchmark_item(
    leaves: list[Leaf],
) -> None:
    from feldspar.generate.filters import Decontaminator

    asked = "次の文章を読んで、タルンの灯台の高さが何メートルであるかを答えてください。"
    item = ExamItem(id="b", exam="benchmark", question=asked, reference="三十")
    guard = Decontaminator([item])

    def found(question: str) -> str | None:
        sample = Sample(id="s", leaf="x", branch="knowledge", question=question, answer="はい。")
        return guard.find_item(sample)

    assert found("次の文章を読んで、タルンの橋について述べてください。") is None
    assert str(found(f"質問です。{asked}")).startswith("exam: shares 26 words in a row")
