"""The one list of what is free to check, and what is made of it."""

from __future__ import annotations

import logging

from feldspar.ahead import inputs, machine, models, servers
from feldspar.ahead.checks import NOTICES, Check, Look, Subject, found_by

log = logging.getLogger(__name__)
notice = logging.getLogger(NOTICES)

LOOKS: tuple[tuple[str, Look], ...] = (
    ("python", machine.python),
    ("extras", machine.extras),
    ("names", inputs.names),
    ("taxonomy", inputs.taxonomy),
    ("data", inputs.data),
    ("exams", inputs.own_exams),
    ("general knowledge", inputs.general),
    ("benchmarks", inputs.benchmarks),
    ("mt-bench", inputs.mt_bench),
    ("device", machine.device),
    ("base", models.base),
    ("licence", models.licence),
    ("reward pair", models.reward_pair),
    ("reward prompts", models.reward_prompts),
    ("folders", models.folders_of_roles),
    ("commands", servers.commands),
    ("cluster", servers.cluster),
    ("teacher", servers.teacher),
    ("judge", servers.judge),
    ("mt-bench judge", servers.mt_bench_judge),
    ("evaluate.server", servers.measured),
    ("reward servers", servers.reward_servers),
    ("compiler", machine.compiler),
    ("memory", machine.memory),
    ("disk", machine.disk),
)
"""In the order in which they are said. Each is one line of `feldspar doctor`."""


def check_all(subject: Subject) -> list[Check]:
    """Every check that the recipe gives reason for."""
    found = (found_by(name, look, subject) for name, look in LOOKS)
    return [check for check in found if check is not None]


def check_before_run(subject: Subject) -> None:
    """Raise what the first wrong check says, with how many more there are; notes are logged, but
    for those that are said elsewhere. What the base is and how it is spoken to is always said."""
    checks = check_all(subject)
    for check in checks:
        if check.state == "note" and check.name in ("evaluate.server", "reward servers", "cluster"):
            log.warning("%s: %s", check.name, check.says)
        elif check.state == "ok" and check.name == "base":
            notice.info("%s: %s", check.name, check.says)
    wrong = [check.error for check in checks if check.error is not None]
    if not wrong:
        return
    first, num_more = wrong[0], len(wrong) - 1
    if num_more:
        raise type(first)(f"{first}; {num_more} more: `feldspar doctor` lists them") from first
    raise first
