"""The model card, made from the run alone: method, data, phases, scores with errors, limits."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import jinja2

from feldspar.config import Recipe
from feldspar.publish.licence import Licence
from feldspar.records import Checkpoint, Leaf, Phase, Sample, Score
from feldspar.runs import open_step

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
base_model: {{ base }}
license: {{ licence.name }}
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
| judge | `{{ judge }}` |
| result of | phase `{{ checkpoint.phase }}`, step {{ checkpoint.step }} |
| digest of the run's checkpoint | `{{ checkpoint.digest[:16] }}` |
| made with | feldspar {{ version }}, seed {{ recipe.seed }} |
| licence | {{ licence.name }} |
{% for warning in licence.warnings %}
**Licence: {{ warning }}.**
{% endfor %}
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

The chat template is in the tokenizer and puts the system prompt in where a conversation has none of
its own; the stop token is in generation_config.json. No code of this repository is needed.

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

`DATA.md` says what the data was made of, leaf by leaf, with licences and attribution.
`CHECKSUMS.sha256` lists every file (`sha256sum -c CHECKSUMS.sha256`). Before this directory was
written, plain transformers was seen to give the same greedy text from it as Feldspar's own sampler.

## Limits

The training data was written by a model and judged by a model; what they get wrong can be learned.
The model has had no safety evaluation beyond the judging of its data. Scores hold for the exams
above and say nothing of other uses. Intervals are of the sampling of items, not of training again.
"""


def model_card(run_path: Path, recipe: Recipe, checkpoint: Checkpoint, licence: Licence) -> str:
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
    judge = recipe.judge and (recipe.judge.model or recipe.judge.endpoint)
    question = "What can you tell me?"
    samples: list[Sample] = open_step(run_path, "samples") or []  # type: ignore[assignment]
    for sample in samples:
        (kept if sample.is_kept else rejected)[sample.branch] += 1
        teacher = sample.teacher or teacher
        if sample.is_kept and sample.context is None:
            question = sample.question
    num_leaves = Counter(leaf.branch for leaf in leaves)
    branches = [(b, num_leaves[b], kept[b], rejected[b]) for b in sorted(num_leaves)]
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(CARD).render(
        recipe=recipe,
        base=Path(recipe.student.base).name,
        teacher=teacher,
        judge=judge or teacher,
        question=question,
        licence=licence,
        version=version("feldspar"),
        checkpoint=checkpoint,
        scores=scores,
        branches=branches,
        leaves=leaves,
        phases=phases,
    )
