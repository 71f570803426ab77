"""What `feldspar taxonomy new` writes: whole small leaves, with a word on each part."""

SKILL = """\
# A skill: a task, shown by a few questions and answers. Write your own over what stands here,
# then run `feldspar taxonomy check` on the taxonomy.
version: 3
created_by: your-name

# What is asked for, in a sentence or two. The teacher is shown it.
task_description: Name the opposite of a word, and use it in a short sentence.

# Five seeds or more, each of another kind: the teacher imitates what it sees. With five, one is
# held out from the teacher, to examine the student on.
seed_examples:
  - question: What is the opposite of "hot"?
    answer: Cold. The lake was too cold for a swim.

  # A text with quotes, colons or line breaks stands after `|`, indented by two more spaces.
  - question: |
      Give the opposite of this word: generous.
    answer: |
      Stingy. He was too stingy to buy a round.

  - question: Which verb means the contrary of "to arrive", and how is it used?
    answer: To leave. We leave before the sun is up.

  - question: Turn "always" around.
    answer: Never. She never forgets a name.

  - question: Does "north" have an opposite?
    answer: Yes, south. The swallows fly south in autumn.

# A skill that works on a given text has a `context:` with that text on every seed.
"""

DOCUMENT_TEXT = """\
# Labradorite

Labradorite is a feldspar mineral. It was first found on Paul Island, near the town of Nain in
Labrador, Canada, and named after that place in 1780.

## Colour

Many pieces show a play of colour, blue, green or gold, that is called labradorescence. It comes
from thin layers inside the stone, which scatter light.

## Use

Polished labradorite is used as a gemstone and as a facing for buildings. On the Mohs scale its
hardness lies between 6 and 6.5.
"""

ATTRIBUTION_TEXT = """\
Title of work: Labradorite
License of the work: CC0-1.0
Creator names: your-name
"""

KNOWLEDGE = """\
# Knowledge: facts that stand in documents. Write your own over what stands here and in
# document.md, then run `feldspar taxonomy check` on the taxonomy.
version: 3
created_by: your-name
domain: geology
document_outline: Labradorite, a feldspar, with its colour and its use.

# Passages copied word for word from different places of the document, with questions on each that
# the passage answers. Name what you ask about: "When was it named?" cannot be answered alone.
seed_examples:
  - context: |
      Labradorite is a feldspar mineral. It was first found on Paul Island, near the town of Nain
      in Labrador, Canada, and named after that place in 1780.
    questions_and_answers:
      - question: What kind of mineral is labradorite?
        answer: Labradorite is a feldspar mineral.
      - question: Where was labradorite first found?
        answer: On Paul Island, near the town of Nain in Labrador, Canada.

  - context: |
      Many pieces show a play of colour, blue, green or gold, that is called labradorescence.
      It comes from thin layers inside the stone, which scatter light.
    questions_and_answers:
      - question: What causes the play of colour in labradorite?
        answer: Thin layers inside the stone, which scatter light.
      - question: What is labradorescence?
        answer: The play of colour, blue, green or gold, that many pieces of labradorite show.

  - context: |
      Polished labradorite is used as a gemstone and as a facing for buildings. On the Mohs scale
      its hardness lies between 6 and 6.5.
    questions_and_answers:
      - question: How hard is labradorite?
        answer: Between 6 and 6.5 on the Mohs scale.

# A file or folder here; or `url:` of a page; or files of a git repository:
#   repo: https://github.com/owner/name
#   commit: 0a1f2672b9b9e2b10a1f2672b9b9e2b10a1f2672
#   patterns: ["*.md"]
document:
  path: document.md
"""
