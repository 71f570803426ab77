"""What a recipe may say about what each phase sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from feldspar.config.base import Count, Fraction, OptionalPath, Part, Share, Temperature
from feldspar.records import Branch


class BaseReplayConfig(Part):
    """General data mixed into every phase, so that the model keeps what the base knew."""

    source: OptionalPath = None
    """A file of rows as for `[[data]]`, or `world:base-replay`."""
    drawn_from: Literal["file", "base"] = Field(
        default="file", validation_alias=AliasChoices("from", "drawn_from")
    )
    """`file`: rows of `source`. `base`: the base model's own answers, sampled once."""
    prompts: OptionalPath = None
    """For `from = "base"`: a file of questions, one a line, or `bank:general`: the package's own
    short questions and requests of many kinds. None: the base asks itself."""
    num_rows: Count = 2000
    """For `from = "base"`: answers to sample; at temperature 0 each prompt is answered once. Where
    there are more `prompts`, these are taken from all over the file."""
    temperature: Temperature = 1.0
    """For `from = "base"`. 0: the base's likeliest answer."""
    max_new_tokens: Count = 256
    """For `from = "base"`: longest question, and longest answer. An answer that is longer is
    cut, and trained without an end."""
    share: Share = 0.25
    """Share of each phase's rows."""

    @model_validator(mode="after")
    def _file_or_base(self) -> BaseReplayConfig:
        if (self.drawn_from == "file") == (self.source is None):
            raise ValueError('give base replay either a `source` or `from = "base"`')
        if self.prompts is not None and self.drawn_from == "file":
            raise ValueError('`prompts` go with `from = "base"`; take them out, or the source')
        return self


class DataConfig(Part):
    """Your own rows, which phases name: a file, or what an earlier run was trained on."""

    name: str
    """The name by which phases refer to it."""
    path: OptionalPath = None
    """JSONL or Parquet of `messages` rows (InstructLab's layout, `unmask` included) or of `text`;
    or a text file."""
    run: OptionalPath = None
    """Instead of a path: folder of an earlier run. Its phases' own rows are taken, and what they
    replayed of runs before it, without their base replay."""

    @model_validator(mode="after")
    def _one_place(self) -> DataConfig:
        if (self.path is None) == (self.run is None):
            raise ValueError(f"data {self.name!r} needs exactly one of path and run")
        return self


class OwnVoiceConfig(Part):
    """Answers said again by the base in its own words before they are trained on, where it says the
    same: a model is moved less by what it might have said. Of questions with one answer; texts stay
    as they are. Rules tell whether the content is the same."""

    branches: Annotated[tuple[Branch, ...], Field(min_length=1)] = ("knowledge",)
    """Whose answers."""
    temperature: Temperature = 0.0
    """0: the base's likeliest words."""
    max_new_tokens: Count = 256
    """Longest answer; a longer one is not taken."""


class MixConfig(Part):
    """How samples become the rows of each phase."""

    short_answer_tokens: Count | None = None
    """Answers up to this long are short. None: the branch's median; ties are short."""
    knowledge_context: Literal["keep", "drop"] = "drop"
    """Whether the question of a knowledge sample shows its passage."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of each source's rows held out from training, if any phase selects by
    log-likelihood."""
    max_bad_rows: Fraction = 0.1
    """Part of a file's rows that may be of no use: those are skipped, counted and listed in
    `skipped.jsonl` with their lines; more of them stop the run before anything is trained."""
    base_replay: BaseReplayConfig | None = None
    """General data mixed into every phase. None: none, and the run warns that the base is
    unprotected."""
