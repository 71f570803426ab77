"""The model card, made from the run alone: method, data, phases, scores with errors, limits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jinja2

from feldspar.config import Recipe
from feldspar.records import Checkpoint, Leaf, Phase, Sample, Score
from feldspar.runs import open_step

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
base_model: {{ base }}
tags: [LAB, feldspar]
---

# {{ recipe.name }}

Made with [LAB](https://arxiv.org/abs/2403.01081) (Large-scale Alignment for chatBots) by Feldspar:
a taxonomy of examples, data written and judged by a teacher model, training in phases with
replay{% if recipe.prefer %}, and preference tuning with a log-ratio reward{% endif %}.

| | |
|---|---|
| base | `{{ base }}` |
| teacher | `{{ teacher }}` |
| result of | phase `{{ checkpoint.phase }}`, step {{ checkpoint.step }} |
| digest | `{{ checkpoint.digest[:16] }}` |

## Scores

| checkpoint | exam | metric | value | 95 % interval | items |
|---|---|---|---:|---|---:|
{% for s in scores -%}
| {{ s.checkpoint }} | {{ s.exam }} | {{ s.metric }} | {{ "%.3f"|format(s.value) }} | \
{{ "%.3f"|format(s.interval[0]) }} to {{ "%.3f"|format(s.interval[1]) }} | {{ s.num_items }} |
{% endfor %}
## Data

| branch | leaves | samples kept | rejected |
|---|---:|---:|---:|
{% for row in branches -%}
| {{ row[0] }} | {{ row[1] }} | {{ row[2] }} | {{ row[3] }} |
{% endfor %}
Licences and attribution of the leaves:
{% for leaf in leaves %}
- `{{ leaf.path }}`: {{ leaf.licence or "not stated" }}
{%- endfor %}

## Phases

| phase | sources | epochs | samples a step | learning rate |
|---|---|---:|---:|---:|
{% for p in phases -%}
| {{ p.name }} | {% for s in p.sources %}{{ s.name }} ({{ s.num_samples }}\
{%- if s.fraction is not none %}, fraction {{ s.fraction }}{% endif %}\
{%- if s.share is not none %}, share {{ s.share }}{% endif %}) {% endfor -%}
| {{ p.num_epochs }} | {{ p.batch_samples }} | {{ p.learning_rate }} |
{% endfor %}
## How to prompt

The chat template is in the tokenizer, the stop token in generation_config.json.
{% if recipe.student.system_prompt %}
System prompt: "{{ recipe.student.system_prompt }}"
{% endif %}
## Limits

The training data was written by a model and judged by a model; what they get wrong can be learned.
The model has had no safety evaluation beyond the judging of its data. Scores hold for the exams
above and say nothing of other uses.
"""


def model_card(run_path: Path, recipe: Recipe, checkpoint: Checkpoint) -> str:
    """The card as Markdown. Raises nothing for a run without samples or scores: it says less."""
    leaves: list[Leaf] = list(open_step(run_path, "leaves") or ())
    phases: list[Phase] = list(open_step(run_path, "phases") or ())
    shown = ("base", checkpoint.phase)
    scores: list[Score] = [
        s for s in open_step(run_path, "scores") or () if s.checkpoint in shown and not s.leaf
    ]
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    teacher = recipe.teacher.model or recipe.teacher.endpoint
    samples: list[Sample] = open_step(run_path, "samples") or []  # type: ignore[assignment]
    for sample in samples:
        (kept if sample.is_kept else rejected)[sample.branch] += 1
        teacher = sample.teacher or teacher
    num_leaves = Counter(leaf.branch for leaf in leaves)
    branches = [(b, num_leaves[b], kept[b], rejected[b]) for b in sorted(num_leaves)]
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(CARD).render(
        recipe=recipe,
        base=Path(recipe.student.base).name,
        teacher=teacher,
        checkpoint=checkpoint,
        scores=scores,
        branches=branches,
        leaves=leaves,
        phases=phases,
    )
