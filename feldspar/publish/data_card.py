"""The data card: what the samples were made of, and what became of those that were asked for."""

from __future__ import annotations

from collections import Counter

import jinja2

from feldspar.publish.chain import Chain
from feldspar.records import Sample
from feldspar.reviews import read_honoured
from feldspar.runs import open_step

NUM_EXAMPLES = 3
CARD = """\
# Data of {{ name }}

{% if not is_generated -%}
No samples were generated: all rows were given.
{% else -%}
{{ "{:,}".format(kept.total()) }} of {{ "{:,}".format(kept.total() + rejected.total()) }} samples \
were kept.
{%- if teachers %} All were written by {{ teachers }} from the seeds and
documents of the leaves below; exams and held-out seeds were never shown to it.{% endif %}
{% for sentence in reviews %}
Before training, {{ sentence }}.
{% endfor %}
| leaf | kept | rejected | licence | attribution | made by |
|---|---:|---:|---|---|---|
{% for leaf in leaves -%}
| `{{ leaf.path }}` | {{ kept[leaf.path] }} | {{ rejected[leaf.path] }} | \
{{ leaf.licence or "not stated" }} | {{ one_line(leaf.attribution) }} | {{ leaf.created_by }} |
{% endfor %}
| rejected because of | samples |
|---|---:|
{% for reason, num in reasons.most_common() -%}
| {{ reason }} | {{ num }} |
{% endfor %}
## Examples

{% for sample in examples -%}
- `{{ sample.leaf }}`: {{ sample.question | replace("\\n", " ") }} \
→ {{ sample.answer | replace("\\n", " ") }}
{% endfor %}
{%- endif %}"""


def data_card(chain: Chain, name: str) -> str:
    """The card as Markdown, of all the runs behind a result; without samples it says so."""
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    teachers: set[str] = set()
    examples: list[Sample] = []
    for sample in (s for run in chain.runs for s in open_step(run, "samples") or ()):
        assert isinstance(sample, Sample)
        teachers.add(sample.teacher)
        if sample.rejected_because is None:
            if not kept[sample.leaf] and len(examples) < NUM_EXAMPLES:
                examples.append(sample)
            kept[sample.leaf] += 1
        else:
            rejected[sample.leaf] += 1
            reasons[sample.rejected_because.partition(" (")[0]] += 1
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    return environment.from_string(CARD).render(
        name=name,
        is_generated=chain.is_generated,
        leaves=chain.leaves(),
        kept=kept,
        rejected=rejected,
        reasons=reasons,
        teachers=" and ".join(f"`{t}`" for t in sorted(filter(None, teachers))),
        examples=examples,
        reviews=[c.sentence for run in chain.runs if (c := read_honoured(run)) and c.num_reviewed],
        one_line=_one_line,
    )


def _one_line(text: str) -> str:
    """All of an attribution, in a cell of a table."""
    return "; ".join(filter(None, map(str.strip, text.splitlines()))).replace("|", "\\|")
