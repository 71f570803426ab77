"""Every kind of finding: its severity as a rule, what it means, and why it is one."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Code(NamedTuple):
    severity: Severity
    meaning: str
    why: str


CODES: dict[str, Code] = {
    "FT001": Code(
        "error",
        "the file cannot be read: not UTF-8, not a plain file, or no right",
        "Every file is read as UTF-8 text; a file saved in another encoding would be read as "
        "other letters.",
    ),
    "FT002": Code(
        "error",
        "not YAML",
        "Nothing of the file can be read. Nearly always a colon, a quote or a line break "
        "stands in a text without quotes; after `|` a text may hold anything.",
    ),
    "FT003": Code(
        "error",
        "too large, too deep, or too many aliases",
        "A leaf of a few seeds is small and flat. What is larger or deeper is a mistake, or "
        "made to hurt whoever reads it.",
    ),
    "FT004": Code(
        "error",
        "the file is not a mapping of keys to values",
        "A leaf is `key: value` lines: `task_description:`, `created_by:`, `seed_examples:`.",
    ),
    "FT005": Code(
        "warning",
        "a key stands twice; the last one counts",
        "YAML forbids it, and readers differ in which of the two counts.",
    ),
    "FT006": Code(
        "warning",
        "a second YAML document in the file is ignored",
        "`---` alone on a line ends a YAML document, even where it was meant as a line in a text.",
    ),
    "FT007": Code(
        "warning",
        "an unknown version, read as the nearest",
        "Versions 1, 2 and 3 exist. The seeds are told by their shape, so a wrong number does "
        "no harm here; it does elsewhere.",
    ),
    "FT008": Code(
        "note",
        "an unknown key, ignored",
        "An unknown key is often a misspelt one, whose text is then missing.",
    ),
    "FT009": Code(
        "warning",
        "a list or mapping where a text is expected, ignored",
        "A text that begins with `[` or `{`, or holds `: `, is a list or a mapping to YAML "
        "unless it stands between quotes.",
    ),
    "FT010": Code(
        "error",
        "the leaf lies under none of the three branch folders",
        "The branch decides how a leaf is taught: knowledge/, foundational_skills/ or "
        "compositional_skills/.",
    ),
    "FT011": Code(
        "error",
        "two leaves have the same path",
        "Samples, exams and scores are kept by a leaf's path, so each path is one leaf's.",
    ),
    "FT012": Code(
        "warning",
        "the file's name is nearly qna.yaml, so it is not read",
        "Only a file named qna.yaml, in lower case, is a leaf.",
    ),
    "FT013": Code(
        "error",
        "a link leads out of the taxonomy",
        "A link out of the folder would teach from files that are not part of the taxonomy.",
    ),
    "FT014": Code(
        "error",
        "the folder's name is not UTF-8",
        "The folder's name becomes the leaf's name, in tables and file names.",
    ),
    "FT015": Code(
        "error",
        "two leaves whose paths differ only in case or Unicode form",
        "The two are one folder on file systems that ignore case or Unicode form (macOS, "
        "Windows): one of them is lost there.",
    ),
    "FT020": Code(
        "error",
        "the leaf has no usable seed",
        "The teacher imitates seeds; with none there is nothing to imitate.",
    ),
    "FT021": Code(
        "warning",
        "a seed without question or answer is skipped",
        "Half a seed shows the teacher nothing.",
    ),
    "FT022": Code(
        "warning",
        "a seed that stands there twice is skipped",
        "The same seed twice counts once.",
    ),
    "FT023": Code(
        "note",
        "fewer than five seeds: none is held out as an exam",
        "An exam needs a question that the teacher never saw. Of five seeds one is held out; "
        "of fewer none, and the exam is made of generated questions alone.",
    ),
    "FT024": Code(
        "warning",
        "some seeds of a skill have a context and some have none",
        "A skill works on a given text, or on none. Seeds of both kinds in one leaf are "
        "taught as one task, so some samples will miss their text. A warning, not an error: "
        "one of 284 published skills does so, and each seed is still taught as it stands.",
    ),
    "FT025": Code(
        "note",
        "a skill without task description",
        "The teacher is shown the description; without it, it must guess the task from the seeds.",
    ),
    "FT026": Code(
        "warning",
        "two seeds that say nearly the same",
        "The teacher imitates what it sees: seeds that say the same give samples that say the "
        "same. Alike are questions with a ROUGE-L above 0.7 whose answer, context, numbers "
        "and names are equal.",
    ),
    "FT027": Code(
        "warning",
        "` #` in a text without quotes: the rest is a comment",
        'In YAML a `#` after a blank begins a comment, so `answer: issue #12` is "issue". '
        "Between quotes, and after `|`, a `#` is a letter like any other.",
    ),
    "FT028": Code(
        "warning",
        "a character that looks like a space, or like nothing",
        "A no-break space or a zero-width space before or after a key is no space to YAML, so the "
        "key is another one. Marks that turn the direction of writing make a text read otherwise "
        "than it is stored. In a text the others are a note: the student learns them.",
    ),
    "FT030": Code(
        "error",
        "a knowledge leaf names no document",
        "Knowledge is taught from documents; seeds only show what a good question is.",
    ),
    "FT031": Code(
        "error",
        "`document` does not say where the documents are",
        "Documents are found by `repo:` and `commit:`, by `path:`, or by `url:`.",
    ),
    "FT032": Code(
        "error",
        "the folder of documents is not there",
        "The documents are looked for in the leaf's folder, the taxonomy's, or the mirror.",
    ),
    "FT033": Code(
        "warning",
        "documents elsewhere that were not looked for: no mirror, and nothing fetched",
        "A check uses no network unless `--documents` is given, so these documents were not "
        "looked at.",
    ),
    "FT034": Code(
        "error",
        "a pattern matches no document",
        "A pattern without a file is a typing error or a file that was moved.",
    ),
    "FT035": Code(
        "error",
        "a path or pattern leads out of its folder",
        "Only what lies below the taxonomy, or below the repository's folder, is read.",
    ),
    "FT036": Code(
        "warning",
        "a document cannot be read and is left out",
        "Markdown, text and HTML in UTF-8 are read; PDF, DOCX and PPTX with the `documents` extra, "
        "where `patterns:` names them.",
    ),
    "FT037": Code(
        "error",
        "the documents hold no text",
        "Scanned pages, for instance, hold pictures and no text.",
    ),
    "FT038": Code(
        "error",
        "a document cannot be fetched, or is refused",
        "What cannot be fetched cannot be taught. Private addresses, other schemes than "
        "https, large files and packed answers are refused, since whoever writes a leaf would "
        "otherwise reach into the network of whoever reads it.",
    ),
    "FT039": Code(
        "note",
        "pictures written into a document as text; they are left out",
        "Converters store pictures as base64 in `data:` addresses. No teacher reads them, and they "
        "would fill most of the chunks. Their alt text is kept.",
    ),
    "FT040": Code(
        "note",
        "an answer whose words are not in its context",
        "Fewer than three in ten of the answer's words stand in the context. The teacher "
        "learns from such a seed to answer from memory. A test of words, so a note: a good "
        "paraphrase may fail it.",
    ),
    "FT041": Code(
        "warning",
        "a context that is not in the documents",
        "A context is a passage copied from the document. Less than half of this one is "
        "there: it was rewritten, or the document at this commit is another.",
    ),
    "FT042": Code(
        "warning",
        "the question is repeated as the answer",
        "An answer that is its question teaches the student to repeat.",
    ),
    "FT043": Code(
        "note",
        "seeds in several languages",
        "The teacher answers in the language of what it is shown; seeds in several languages "
        "give samples in several.",
    ),
    "FT044": Code(
        "note",
        "a long context, question or answer",
        "Every prompt shows the teacher several seeds. Contexts over 500 words, or a question "
        "and answer over 500 together, leave little room for the rest.",
    ),
    "FT045": Code(
        "note",
        "a knowledge leaf without attribution or licence",
        "Documents have authors. Without attribution.txt nobody knows whether the data made "
        "of them may be passed on.",
    ),
    "FT046": Code(
        "warning",
        "a licence that is not on the accepted list",
        "The licence follows each sample to the data card. On the list: public domain, CC0, "
        "CC-BY, CC-BY-SA, Apache-2.0, MIT, BSD, CDLA-Permissive, and a few others that allow "
        "changed copies.",
    ),
    "FT047": Code(
        "error",
        "a secret in a document or a seed: a key, a token, a password",
        "Documents and seeds are sent to the teacher, and what the student learns is published "
        "with it. Secrets are known by their issuers' prefixes. One that is meant to be there, in "
        "a text about keys, is let through by `taxonomy.allow_secrets = true`.",
    ),
    "FT048": Code(
        "warning",
        "personal data in a document or a seed: an address, a telephone or card number",
        "A teacher on somebody else's machine receives them, and the student may repeat them. "
        "E-mail addresses, telephone, card and account numbers are looked for; names are not.",
    ),
    "FT049": Code(
        "warning",
        "a PDF that is read without docling's models",
        "Its text is taken line by line as it lies in the file. Text in one column comes out well; "
        "tables and columns may not. What was read once stays so, that a run's documents do not "
        "change under it.",
    ),
    "FT099": Code(
        "note",
        "more than 100 findings in one file; the rest is left out",
        "Mending the first ones often mends the rest.",
    ),
}
