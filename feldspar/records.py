"""The nouns: what the rooms hand to each other.

Leaf -> Sample -> Conversation -> Phase -> Checkpoint -> Answer -> Score

All are frozen. A record refers to earlier ones by id: "which seed taught this?" is a lookup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from feldspar.keys import Place

Branch = Literal["knowledge", "foundational", "compositional"]
BRANCHES: tuple[Branch, ...] = ("knowledge", "foundational", "compositional")
Role = Literal["system", "user", "assistant"]
TrainOn = Literal["answers", "unended", "turns", "everything"]
"""Answers with their stop tokens; without the last one's; what user and assistant say; or all."""
SampleKind = Literal["pair", "document", "retrieval", "reversed", "across", "unanswerable"]
SHOWN_KINDS: frozenset[SampleKind] = frozenset(("retrieval", "unanswerable"))  # passage in view


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One example written by a person: `question`, `answer`, and the context it is grounded in."""

    id: str
    """Content hash of question, answer and context (16 hex digits)."""
    question: str
    answer: str
    context: str | None = None
    line: int = 0
    """Line in qna.yaml, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of a document, small enough to be shown to the teacher."""

    id: str
    document: str
    """Where it came from: `OWNER/REPO@COMMIT/FILE`, a path, or a URL."""
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A folder of the taxonomy with a qna.yaml: one thing to teach."""

    path: str
    """Relative to the taxonomy, with `/`: `knowledge/science/astronomy/phoenix`."""
    branch: Branch
    task_description: str
    seeds: tuple[Seed, ...]
    """What the teacher may see."""
    exam_seeds: tuple[Seed, ...] = ()
    """Held out from the teacher."""
    chunks: tuple[Chunk, ...] = ()
    domain: str = ""
    licence: str = ""
    attribution: str = ""
    created_by: str = ""
    version: int = 1

    @property
    def is_grounded(self) -> bool:
        """A skill whose seeds carry a context, or knowledge that stands on documents."""
        return bool(self.chunks) or any(s.context for s in (*self.seeds, *self.exam_seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """What a judge said of one criterion: `value` is 0 or 1 for yes/no, 1 to 3 for a rating."""

    criterion: str
    value: float
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row written by the teacher, kept or rejected, with everything it was made of."""

    id: str
    leaf: str
    branch: Branch
    question: str
    answer: str
    context: str | None = None
    chunk: str | None = None
    """Id of the chunk it is grounded in."""
    seeds: tuple[str, ...] = ()
    """Ids of the seeds that were shown."""
    teacher: str = ""
    draw: int = 0
    judgments: tuple[Judgment, ...] = ()
    rejected_because: str | None = None
    """None when kept, else `stage: reason (detail)`: `judge: not faithful`."""
    kind: SampleKind = "pair"
    """`document`: the answer is a text to be trained on as it is. `retrieval`: the context shows
    the passage among others. `unanswerable`: the passage in the context does not tell."""
    rendering: str = ""
    """Form of the chunk: `summary`, ...; `focal`: answers the question; empty: the chunk itself."""

    @property
    def is_kept(self) -> bool:
        return self.rejected_because is None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeScore:
    """How well a judge tells good pairs from corrupted ones by one criterion.

    `kind` is `good`, or what was done to the pairs: `wrong answer`, `another leaf's answer`, ...
    """

    criterion: str
    kind: str
    num_pairs: int
    num_accepted: int
    num_unreadable: int = 0
    """Judgments that could not be read twice, or were refused; they are not accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    content: str


def user_turn(question: str, context: str | None) -> str:
    """What a user says: the context, then the question. One form, in training and in exams."""
    return f"{context}\n{question}" if context else question


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a student is trained on: turns, and where they come from."""

    id: str
    source: str
    """Name of the data source: `knowledge-short`, `skills`, `base replay`, ..."""
    messages: tuple[Message, ...]
    leaf: str = ""
    train_on: TrainOn = "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows a phase draws from: a JSONL file of conversations, by reference.

    One of `fraction` and `share` is set where it is replayed; a phase's own texts have a `share`.
    """

    name: str
    path: Place[str]
    """JSONL (zstd) file of `Conversation`."""
    digest: str
    num_samples: int
    """Rows in the file."""
    fraction: float | None = None
    """Part of this source's own rows, redrawn each epoch, 0 to 1."""
    share: float | None = None
    """Part of the phase's rows, 0 to below 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one stretch of training sees."""

    name: str
    sources: tuple[Source, ...]
    """The phase's own rows first, then what it replays."""
    held_out: tuple[Source, ...] = ()
    """Rows of the same sources that are set apart from training, where any are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTraining:
    """How a phase is trained, and how its checkpoint is chosen."""

    name: str
    """Of the phase."""
    num_epochs: int
    batch_samples: int
    """Samples per optimizer step, over all devices."""
    learning_rate: float
    warmup_steps: int
    select: str
    """`exams`, `log-likelihood`, `last`, or a benchmark's task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model directory in Hugging Face format."""

    path: str
    digest: str
    """Content digest of weights and tokenizer: what caches and step keys go by."""
    phase: str = "base"
    step: int = 0

    @property
    def key(self) -> str:
        """What steps that are handed a checkpoint are known by."""
        return self.digest


Form = Literal[
    "final", "exact", "holds", "number", "upper", "lower", "words", "items", "lines", "starts",
    "ends", "json", "refusal", "answered", "unknown",
]  # fmt: skip
"""What makes a text right by itself: see `text/match.py`."""
Match = Form | Literal["likelihood", "judge", "choice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamItem:
    """A question with known answers, never trained on.

    `match`: "final": the normalised answer ends with an accepted one ("7 + 3 = 10." is right for
    "10"); "exact": they are equal; "likelihood": too long to match, only the reference answer's
    log-likelihood is measured; "judge": that, and a judge says whether the text is right; "choice":
    `reference` is likelier, by its length, than each of `choices`.
    """

    id: str
    exam: str
    question: str
    reference: str
    """A full right answer: its log-likelihood is measured."""
    accepted: tuple[str, ...] = ()
    match: Match = "final"
    choices: tuple[str, ...] = ()
    """Wrong answers beside the reference, for `match="choice"`; with `match="holds"`, what must not
    be said first."""
    context: str | None = None
    leaf: str = ""
    branch: Branch | None = None
    origin: Literal["held-out", "generated", "file"] = "file"
    use: Literal["select", "report"] = "report"
    """What it is for: choosing checkpoints, or the final table. Never both."""
    is_retention: bool = False
    """Whether it asks for what was known before and is to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a checkpoint said to an exam item."""

    item: str
    exam: str
    leaf: str
    text: str
    is_right: bool | None
    """None when the item cannot be matched (`match="likelihood"`)."""
    log_likelihood: float | None
    """Mean log-likelihood per token of the reference answer, in nats. None of a served model that
    does not tell it."""
    ended: bool = True


class Interval(NamedTuple):
    low: float
    high: float


JUDGE_ERRORS = "judge errors"
"""A metric: the share of a judge's replies that say nothing of use. They are no part of a score."""
FLIPS = "share of answers"
"""A metric: general answers that were right and are wrong, or the other way round."""
AGREEMENT = "agreement of wordings"
"""A metric: the share of items that are right in both wordings, or wrong in both."""
PERPLEXITY = "perplexity"
"""A metric: exp of the mean negative log-likelihood of a token; its items hold nats a token."""
KL = "KL to the base"
"""A metric: how far a model is from its base on what the base says, in nats a token."""
UNTOUCHED = ": untouched"
"""Behind an exam's name: without the items that the training data holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure with its error: `exam` over `num_items` items on `checkpoint`."""

    checkpoint: str
    """`base`, `sft`, `preferred`, or a phase and step such as `skills/120`."""
    exam: str
    metric: str
    """`accuracy`, `log-likelihood` (nats a token), `rating` (1 to 10), `win rate`, `judge errors`
    (a share), or the name that lm_eval has for it."""
    value: float
    interval: Interval
    num_items: int
    settings: str = ""
    answers_path: Place[str] = ""
    leaf: str = ""


class PairedShares(NamedTuple):
    """Shares of right answers of two models, or two forms of one, to the same items of an exam."""

    exam: str
    num_items: int
    before: float
    after: float
    interval: Interval
    """Of `after - before`, paired, 95 %."""
    leaf: str = ""
    is_retention: bool = False

    @property
    def is_beyond_noise(self) -> bool:
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A scored item that the training data holds, or nearly: its score may be memory."""

    item: str
    """Id within its exam."""
    exam: str
    question: str
    how: str
    """`13 words in a row`, `all its words`, or `ROUGE-L 0.93`."""
    source: str
    """Of the training row."""
    row: str
    """Id of the training row."""


class ScoreCheckpoint(Protocol):
    """Scores a checkpoint on exams; handed to training and preference tuning by flow.py."""

    key: str
    """Content key of the items and settings: part of the key of every step it is handed to."""

    def __call__(self, checkpoint: Checkpoint) -> list[Score]: ...


class ScoreItems(Protocol):
    """Marks a checkpoint item by item, so that two of them can be compared in pairs.

    What a phase's `select` names; handed to training by flow.py.
    """

    key: str
    """Content key of the items and settings."""
    metric: str

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """By item; greater is better. The same items for every checkpoint."""
        ...


class RateCheckpoint(ScoreCheckpoint, Protocol):
    """MT-Bench of one checkpoint after another, as a figure and question by question."""

    def values(self, checkpoint: Checkpoint) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question to sample answers for in preference tuning."""

    id: str
    source: str
    """Leaf or data source; prompts are drawn uniformly over sources."""
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One sampled answer with its reward. `domain`: whose prompt the reward pair read first."""

    prompt: str
    draw: int
    text: str
    ended: bool
    num_tokens: int
    reward: float
    domain: str = ""


class Estimate(NamedTuple):
    """What a step will cost; a room's `estimate()` gives it to `plan`. Zero where it costs none."""

    step: str
    stage: str = ""
    """Of calls to a teacher; those whose name begins with `judge` are asked of the judge."""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    optimizer_steps: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    note: str = ""


class PreferenceVolume(NamedTuple):
    """How much preference tuning draws, as far as it is known before it starts."""

    num_rounds: int
    prompts: int
    answers: int
    """Of one round, and to each of them."""
    held_out_prompts: int
    held_out_answers: int
    """Answered by the start, and by each model that a round makes; and answers to each of them."""
    models_per_round: int
    """2 with a control, else 1."""
    answer_tokens: int
    domain_tokens: int = 0
    """Most tokens of an answer, and of what the reward pair reads before a question."""


class MemoryEstimate(NamedTuple):
    """Bytes that training takes on one device at its peak, under named options."""

    options: tuple[str, ...]
    """What is done to save memory: `bf16 states`, `recompute`, ...; empty for none."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """With what computing takes beside them: copies in bf16, logits, gathered layers."""
    process: int = 0
    """On a CPU, where they share its memory: the interpreter and its libraries."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.process
