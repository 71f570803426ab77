"""Seeds proposed by the teacher from a leaf's documents, for a person to review.

Contexts are chunks of the document, word for word; only questions and answers are the teacher's.
The draft is no qna.yaml, so nothing is taught from it before someone has read and renamed it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.config import TeacherConfig
from feldspar.errors import TaxonomyError
from feldspar.files import write_text_whole
from feldspar.records import Chunk, Message
from feldspar.taxonomy.documents.fetching import Fetcher
from feldspar.taxonomy.documents.find import QNA, Document, DocumentFinder
from feldspar.taxonomy.findings import Findings
from feldspar.taxonomy.qna import DocumentSource
from feldspar.taxonomy.read_leaves import cut_documents, inspect_taxonomy
from feldspar.taxonomy.writing import Pair, leaf_text
from feldspar.teacher import Journal, Refused, open_teacher
from feldspar.tokens.count import count_words

Ask = Callable[[str], Awaitable[str]]
"""A prompt's answer by the teacher; "" where there is none."""

DRAFT = "qna.draft.yaml"
NUM_CONTEXTS = 5
CONTEXT_WORDS = 200
_HEAD = """\
# A DRAFT, proposed by a teacher model, from which nothing is taught. Read every line against the
# document, mend or remove what is wrong, and fill in what is empty. Then rename this file to
# qna.yaml, or move the seeds into the qna.yaml that is there.
"""
_PROMPT = """\
Read the passage and write three questions that it answers, each of another kind, with their \
answers. Name what you ask about, so that the question can be understood without the passage. \
Answer from the passage alone, in one or two sentences. Write nothing else, in this form:

Question: ...
Answer: ...

Passage:
{passage}
"""
_LABEL = re.compile(
    r"[^\w\n]{0,8}\d{0,3}[^\w\n]{0,8}(question|answer)[^\w\n:]{0,4}\d{0,3}[^\w\n:]{0,4}:(.*)",
    re.IGNORECASE,
)
MAX_REPLY_CHARACTERS = 20_000
MAX_REPLY_TOKENS = 800
CHARACTERS_A_TOKEN = 4
"""As `feldspar plan` reckons."""
NO_PROPOSAL = "the teacher proposed no question; ask a larger model"


class DraftVolume(NamedTuple):
    """Calls and tokens of proposals."""

    num_calls: int
    prompt_tokens: int
    """About so many, at 4 characters a token."""
    most_written: int


async def draft_leaf(folder: Path, ask: Ask, *, mirror: Path | None, fetcher: Fetcher) -> Path:
    """Write `qna.draft.yaml` into a leaf's folder. Raises TaxonomyError.

    The documents are those that the leaf's qna.yaml names, else all that lie in the folder.
    """
    path = folder / DRAFT
    if path.exists():
        raise TaxonomyError(f"{path}: is there already; review it, or remove it for a new one")
    source, documents = _documents(folder, mirror, fetcher)
    pairs = await propose_pairs(documents, ask)
    if not pairs:
        raise TaxonomyError(f"{folder}: {NO_PROPOSAL}")
    write_text_whole(path, _HEAD + leaf_text(pairs, is_knowledge=True, path=source))
    return path


async def draft_with_teacher(
    folder: Path, endpoint: str, journal_path: Path, *, mirror: Path | None
) -> Path:
    """As `draft_leaf`, asking the teacher behind a URL; its answers are kept in a journal."""
    config = TeacherConfig(endpoint=endpoint)
    async with _asking(config, journal_path) as ask:
        return await draft_leaf(folder, ask, mirror=mirror, fetcher=Fetcher())


async def propose_with_teacher(
    documents: Sequence[Document], config: TeacherConfig, journal_path: Path
) -> list[Pair]:
    """As `propose_pairs`, asking a recipe's teacher; its answers are kept in a journal.

    Raises TeacherError.
    """
    async with _asking(config, journal_path) as ask:
        return await propose_pairs(documents, ask)


async def propose_pairs(documents: Sequence[Document], ask: Ask) -> list[Pair]:
    """Questions with answers on some passages of the documents; none where none was proposed."""
    pairs: list[Pair] = []
    for chunk in _drafted_chunks(documents):
        reply = await ask(_PROMPT.format(passage=chunk.text))
        pairs += read_pairs(reply, chunk.text)
    return pairs


def draft_volume(documents: Sequence[Document]) -> DraftVolume:
    """What asking for proposals takes, before anything is asked."""
    prompts = [_PROMPT.format(passage=chunk.text) for chunk in _drafted_chunks(documents)]
    return DraftVolume(
        num_calls=len(prompts),
        prompt_tokens=sum(len(prompt) // CHARACTERS_A_TOKEN for prompt in prompts),
        most_written=len(prompts) * MAX_REPLY_TOKENS,
    )


@asynccontextmanager
async def _asking(config: TeacherConfig, journal_path: Path) -> AsyncIterator[Ask]:
    with Journal(journal_path) as journal:
        async with open_teacher(config, config.endpoint, journal) as teacher:

            async def ask(prompt: str) -> str:
                messages = [Message(role="user", content=prompt)]
                try:
                    reply = await teacher.ask(
                        messages,
                        stage="draft",
                        temperature=0.0,
                        max_tokens=MAX_REPLY_TOKENS,
                        # What was said beforehand to be the most is the most.
                        may_grow=False,
                    )
                except Refused:
                    return ""
                return reply.text

            yield ask


def _drafted_chunks(documents: Sequence[Document]) -> list[Chunk]:
    return _spread(cut_documents(tuple(documents), CONTEXT_WORDS, count_words))


def read_pairs(reply: str, context: str) -> list[Pair]:
    """The questions and answers of a reply; `1. **Question:** ...` is read too."""
    pairs: list[Pair] = []
    question = ""
    for label, text in _labelled(reply[:MAX_REPLY_CHARACTERS]):
        if label == "question":
            question = text
        elif question and text:
            pairs.append(Pair(question, text, context))
            question = ""
    return pairs


def _labelled(reply: str) -> list[tuple[str, str]]:
    """Each label with the text up to the next one."""
    parts: list[tuple[str, list[str]]] = []
    for line in reply.split("\n"):
        label = _LABEL.fullmatch(line)
        if label is not None:
            parts.append((label[1].lower(), [label[2]]))
        elif parts:
            parts[-1][1].append(line)
    return [(label, "\n".join(lines).strip("*_ \n")) for label, lines in parts]


def _documents(
    folder: Path, mirror: Path | None, fetcher: Fetcher
) -> tuple[str | None, tuple[Document, ...]]:
    """What `document:` names, None where a qna.yaml says so already, and the documents."""
    if not folder.is_dir():
        raise TaxonomyError(f"{folder}: no such folder; make it and put the documents there")
    if (folder / QNA).exists():
        source_path = None
        (leaf_file,) = inspect_taxonomy(folder, mirror, fetcher)
        findings, documents = leaf_file.findings, leaf_file.documents
    else:
        source_path = "."
        noted = Findings(folder)
        source = DocumentSource(path=".", patterns=(), at=(0, 0))
        finder = DocumentFinder(folder, None, is_needed=True)
        documents = finder.find(folder, folder, [source], noted)
        findings = tuple(noted)
    if not any(document.text.strip() for document in documents):
        why = next((f"{f.message}; {f.cure}" for f in findings if f.code >= "FT03"), "no documents")
        raise TaxonomyError(f"{folder}: {why}")
    return source_path, documents


def _spread(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Some chunks from the whole length of the documents, leaving out the shortest."""
    long = [chunk for chunk in chunks if 2 * chunk.num_tokens >= CONTEXT_WORDS // 2] or list(chunks)
    step = max(1.0, len(long) / NUM_CONTEXTS)
    return [long[int(number * step)] for number in range(min(NUM_CONTEXTS, len(long)))]
