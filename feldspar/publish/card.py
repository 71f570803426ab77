"""The model card, made from the run alone: method, data, phases, scores with errors, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jinja2

from feldspar.config import Recipe
from feldspar.publish.base_facts import hub_id_of
from feldspar.publish.chain import Chain
from feldspar.publish.gguf import GgufFile
from feldspar.publish.licence import Licence
from feldspar.publish.machine_files import front_matter
from feldspar.records import Checkpoint, Leaf, PairedShares, Score, Source
from feldspar.reference_scores import COLUMNS, FOOTNOTES, PUBLISHED_ROWS, own_rows, own_settings
from feldspar.runs import open_step
from feldspar.student.hub import hub_name

CARD = """\
---
{{ front }}
---

# {{ recipe.name }}

{% if is_generated -%}
Made with [LAB](https://arxiv.org/abs/2403.01081) (Large-scale Alignment for chatBots) by Feldspar:
a taxonomy of examples, data written and judged by a teacher model, training in phases with
replay{% if recipe.prefer %}, and preference tuning{% endif %}.
{%- else -%}
Trained by Feldspar on rows that were given: no teacher wrote any of them.
{%- endif %}

| | |
|---|---|
| base | `{{ base }}` |
{% if is_generated -%}
| teacher | `{{ teacher }}` |
| judge | `{{ judge }}` |
{% endif -%}
| result of | phase `{{ checkpoint.phase }}`, step {{ checkpoint.step }} |
| digest of the run's checkpoint | `{{ checkpoint.digest[:16] }}` |
| made with | feldspar {{ version }}, seed {{ recipe.seed }} |
| weights | {{ dtype }}{% if dtype != "float32" %}; the run's checkpoint is in float32{% endif %} |
| licence | {{ licence.name }} |
| recipe | `recipe.json`, digest `{{ recipe_digest[:16] }}` |
{% for warning in licence.warnings %}
**Licence: {{ warning }}.**
{% endfor %}
## Scores

{% if exams -%}
The run's own exams, with 95 % intervals; `base` is the model before training. `accuracy`
is the share of right answers, `log-likelihood` that of the right answer in nats a token.

| exam | items | measure | base | this model |
|---|---:|---|---|---|
{% for e in exams -%}
| {{ e.exam }} | {{ e.num_items }} | {{ e.metric }} | {{ e.base }} | {{ e.ours }} |
{% endfor %}
{%- else -%}
This run has scored no exams.
{% endif %}
{%- if changes %}
### Learned, kept, lost

Shares of right answers before and after, paired over the same items; \
`feldspar compare {{ run_name }}`
prints them with more, `feldspar report {{ run_name }}` shows the answers.

| exam | items | base | this model | difference | |
|---|---:|---:|---:|---|---|
{% for c in changes -%}
| {{ c.leaf and "`" + c.leaf + "`" or c.exam }} | {{ c.num_items }} | {{ share(c.before) }} | \
{{ share(c.after) }} | {{ paired(c) }} | {{ verdict(c) }} |
{% endfor %}
{%- endif %}
{%- if files %}
### What the GGUF files cost

The run's exams, put to each file through llama.cpp's server by the file's own chat template, beside
this model's own answers. The row of f16, where there is one, shows what the engine alone changes.

| file | MB | matrices of another type | exam | items | this model | file | difference |
|---|---:|---|---|---:|---:|---:|---|
{% for file, costs in files -%}
{% for c in costs -%}
| `{{ file.path.name }}` | {{ file.num_bytes // 1000000 }} | {{ file.fallback }} | {{ c.exam }} | \
{{ c.num_items }} | {{ share(c.before) }} | {{ share(c.after) }} | {{ paired(c) }} |
{% else -%}
| `{{ file.path.name }}` | {{ file.num_bytes // 1000000 }} | {{ file.fallback }} | not measured \
| | | | |
{% endfor -%}
{% endfor %}
{%- endif %}
{%- if published %}
### Beside published models

Half the 95 % interval after each score of this run; published scores as they were printed.

| model |{% for c in columns %} {{ c.title }} |{% endfor %}
|---|{% for c in columns %}---|{% endfor %}
{% for row in own -%}
| {{ row.model }}, this run |{% for s in row.scores %} {{ s or "-" }} |{% endfor %}
{% endfor -%}
{% for row in published -%}
| {{ row.model }}, published |{% for s in row.scores %} {{ s or "-" }} |{% endfor %}
{% endfor %}
How they were measured:

{% for line in own_settings -%}
- this run, {{ line }}
{% else -%}
- this run: not measured
{% endfor -%}
{% for c in columns -%}
- published, {{ c.title }}: {{ c.settings }}
{% endfor -%}
{% for note in notes -%}
- {{ note }}
{% endfor %}
{%- endif %}
## Data

{% if is_generated -%}
| branch | leaves | samples kept | rejected | licences of the leaves |
|---|---:|---:|---:|---|
{% for row in branches -%}
| {{ row.name }} | {{ row.num_leaves }} | {{ "{:,}".format(row.kept) }} | \
{{ "{:,}".format(row.rejected) }} | {{ row.licences }} |
{% endfor %}
| leaf | licence | samples kept | part of all |
|---|---|---:|---:|
{% for leaf in leaves -%}
| `{{ leaf.path }}` | {{ leaf.licence or "not stated" }} | {{ of_leaf[leaf.path] }} | \
{{ "{:.0%}".format(of_leaf[leaf.path] / (of_leaf.total() or 1)) }} |
{% endfor %}
The teacher wrote them from the leaves' seeds and documents. `DATA.md` has each leaf's attribution
and author, why samples were rejected, and examples.
{%- else -%}
Rows of {{ data }}, as they were given; nobody stated their licences here.
{%- endif %}

## Training

| phase | rows of an epoch | epochs | samples a step | learning rate |
|---|---|---:|---:|---:|
{% for p in phases -%}
| {{ p.name }} | {% for s in p.sources %}{{ " + " if not loop.first }}{{ s.name }}\
 ({{ rows_text(s) }}){% endfor %} | {{ trained[p.name].num_epochs }} | \
{{ trained[p.name].batch_samples }} | {{ "{:g}".format(trained[p.name].learning_rate) }} |
{% endfor %}
{%- if recipe.prefer %}
Then preference tuning ({{ recipe.prefer.method }}): up to \
{{ "{:,}".format(recipe.prefer.num_prompts) }} prompts with \
{{ recipe.prefer.num_answers }} answers each, rewarded by \
{% if recipe.prefer.reward == "log-ratio" %}the log-ratio of
`{{ name_of(recipe.prefer.aligned) }}` to `{{ name_of(recipe.prefer.base) }}`\
{% if recipe.prefer.reward_prompts %}, which read a prompt of each question's domain first\
{% endif %}, \
{% else %}the reward model
`{{ name_of(recipe.prefer.reward_model_name) }}`, {% endif -%}
in at most {{ recipe.prefer.num_rounds }} round{{ "s" if recipe.prefer.num_rounds > 1 }}.
{% endif %}
## How to prompt

The chat template is in the tokenizer and puts the system prompt in where a conversation has none of
its own; the stop token is in generation_config.json. No code of this repository is needed.
{%- if modelfiles %} With Ollama:
`ollama create {{ recipe.name }} -f {{ modelfiles[0] }}`.
{%- endif %}
{%- if has_adapter %} The folder `adapter/` holds the un-merged LoRA adapter for peft:
`PeftModel.from_pretrained(base, "PATH", subfolder="adapter")`.
{%- endif %}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForCausalLM.from_pretrained("PATH")
turns = [{"role": "user", "content": {{ question | tojson }}}]
inputs = tokenizer.apply_chat_template(
    turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
output = model.generate(**inputs, max_new_tokens=100, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
{% if recipe.student.system_prompt %}
System prompt: "{{ recipe.student.system_prompt }}"
{% endif %}
## Provenance

{% if is_generated -%}
`DATA.md` says what the data was made of, leaf by leaf, with licences and attribution.
{% endif -%}
`recipe.json` holds every setting that decides a result, `CITATION.cff` says how to cite it.
`CHECKSUMS.sha256` lists every file (`sha256sum -c CHECKSUMS.sha256`). Before this directory was
written, plain transformers was seen to give the same greedy text from it as Feldspar's own sampler.

## Limits

{% if is_generated -%}
The training data was written by a model and judged by a model; what they get wrong can be learned.
{% endif -%}
The model has had no safety evaluation beyond the judging of its data. Scores hold for the exams
above and say nothing of other uses. Intervals are of the sampling of items, not of training again.
"""


class Exam(NamedTuple):
    """A line of the table of scores."""

    exam: str
    num_items: int
    metric: str
    base: str
    ours: str


class BranchData(NamedTuple):
    """A line of the table of data."""

    name: str
    num_leaves: int
    kept: int
    rejected: int
    licences: str


class Extras(NamedTuple):
    """What a card says that is not in the run's own rows."""

    dtype: str = "float32"
    """Of the published weights."""
    recipe_digest: str = ""
    changes: Sequence[PairedShares] = ()
    """From the base to this model, exam by exam and leaf by leaf."""
    files: Sequence[tuple[GgufFile, Sequence[PairedShares]]] = ()
    """GGUF files, and what the run's exams say of each."""
    modelfiles: Sequence[str] = ()
    has_adapter: bool = False


def model_card(
    chain: Chain, recipe: Recipe, checkpoint: Checkpoint, licence: Licence, extras: Extras
) -> str:
    """The card as Markdown, of the last run of a chain, with the data of all of it.

    Raises nothing for a run without samples or scores: it says less.
    """
    run_path = chain.runs[-1]
    teacher = recipe.teacher.title
    judge = recipe.judge and recipe.judge.title
    question = "What can you tell me?"
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    of_leaf: Counter[str] = Counter()
    for sample in (s for run in chain.runs for s in open_step(run, "samples") or ()):
        (kept if sample.is_kept else rejected)[sample.branch] += 1
        of_leaf[sample.leaf] += sample.is_kept
        teacher = sample.teacher or teacher
        if sample.is_kept and sample.context is None:
            question = sample.question
    scores = list(published_scores(run_path, checkpoint))
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(CARD).render(
        **extras._asdict(),
        front=card_front(chain, recipe, licence, has_gguf=bool(extras.files)),
        run_name=run_path.name,
        recipe=recipe,
        base=name_of(recipe.student.base),
        teacher=teacher,
        judge=judge or teacher,
        question=question,
        licence=licence,
        version=version("feldspar"),
        checkpoint=checkpoint,
        exams=_exams(scores),
        is_generated=chain.is_generated,
        data=", ".join(f"`{given.name}`" for given in recipe.data),
        branches=_branches(chain.leaves(), kept, rejected),
        leaves=chain.leaves(),
        of_leaf=of_leaf,
        phases=list(open_step(run_path, "phases") or ()),
        trained={training.name: training for training in recipe.train.of_phases()},
        name_of=name_of,
        rows_text=_rows_text,
        share=lambda value: f"{value:.2f}",
        paired=_paired_text,
        verdict=_verdict,
        **_beside_published(scores, recipe),
    )


def card_front(chain: Chain, recipe: Recipe, licence: Licence, *, has_gguf: bool) -> str:
    """The YAML before the card's text."""
    base_model = _base_model(recipe.publish.base_model) or hub_id_of(chain.base)
    return front_matter(licence, base_model=base_model, has_gguf=has_gguf)


def _base_model(stated: str) -> str:
    """Without its revision, which the hub does not take there."""
    name = hub_name(stated)
    return stated if name is None else name.id


def published_scores(run_path: Path, checkpoint: Checkpoint) -> Iterator[Score]:
    """Of the base and the result, whole exams and benchmarks."""
    for step in ("scores", "benchmarks", "mt-bench"):
        for score in open_step(run_path, step) or ():
            if score.checkpoint in ("base", checkpoint.phase) and not score.leaf:
                yield score


def name_of(model: str) -> str:
    """A hub id as it is; of a folder its name, or that of the run it is a result of."""
    path = Path(model)
    if not path.is_absolute():
        return model
    of_run = next((p for p in path.parents if (p / "recipe.json").is_file()), None)
    return of_run.name if of_run else path.name


def _exams(scores: list[Score]) -> list[Exam]:
    """The run's own exams, shares of right answers first, the base's figure beside the result's."""
    known = {column.exam for column in COLUMNS}
    found: dict[tuple[str, str], dict[str, Score]] = {}
    for score in scores:
        if score.metric in ("accuracy", "log-likelihood") and score.exam not in known:
            found.setdefault((score.metric, score.exam), {})[score.checkpoint] = score
    lines = []
    for (metric, exam), by_checkpoint in sorted(found.items(), key=lambda item: item[0][0]):
        base = by_checkpoint.pop("base", None)
        ours = next(iter(by_checkpoint.values()), None)
        num_items = (ours or base).num_items  # type: ignore[union-attr]
        lines.append(Exam(exam, num_items, metric, _value(base), _value(ours)))
    return lines


def _value(score: Score | None) -> str:
    if score is None:
        return "-"
    # Adding zero takes the sign from what rounds to it.
    value, low, high = (round(x, 2) + 0.0 for x in (score.value, *score.interval))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _paired_text(shares: PairedShares) -> str:
    """`-0.03 [-0.07, 0.01]`."""
    values = (shares.after - shares.before, *shares.interval)
    value, low, high = (round(one, 2) + 0.0 for one in values)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _verdict(shares: PairedShares) -> str:
    if not shares.is_beyond_noise:
        return "within noise"
    if shares.after > shares.before:
        return "gained" if shares.is_retention else "learned"
    return "lost"


def _branches(leaves: list[Leaf], kept: Counter[str], rejected: Counter[str]) -> list[BranchData]:
    lines = []
    for name in sorted({leaf.branch for leaf in leaves}):
        licences = Counter(leaf.licence or "not stated" for leaf in leaves if leaf.branch == name)
        text = ", ".join(f"{licence} ({number})" for licence, number in licences.most_common())
        lines.append(BranchData(name, licences.total(), kept[name], rejected[name], text))
    return lines


def _rows_text(source: Source) -> str:
    """`663`, or of what is replayed how much."""
    if source.share is not None:
        return f"{source.share:.0%} of the rows, from {source.num_samples:,}"
    if source.fraction is not None and source.fraction < 1:
        return f"{source.fraction:.0%} of {source.num_samples:,}"
    return f"{source.num_samples:,}"


def _beside_published(scores: list[Score], recipe: Recipe) -> dict[str, object]:
    """The run's rows of the published benchmarks, and the published rows that go with them."""
    own, wanted = own_rows(scores), recipe.publish.compare_with
    rows = [row for row in PUBLISHED_ROWS if row.model in wanted] if wanted else PUBLISHED_ROWS
    used = {letter for row in rows for score in row.scores for letter in score.split()[1:]}
    return {
        "columns": COLUMNS,
        "own": own,
        "own_settings": own_settings(scores),
        "published": rows if own or wanted else (),
        "notes": [note for note in FOOTNOTES if note[1] != ":" or note[0] in used],
    }
