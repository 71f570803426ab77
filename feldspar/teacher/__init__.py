"""Ask a model durably: journal, budget, and reading what judges say."""

from feldspar.endpoint.faults import Refused
from feldspar.teacher.budget import Budget, BudgetSpent, Spent
from feldspar.teacher.durable import Reply, Teacher, open_teacher
from feldspar.teacher.journal import Journal, StageStats
from feldspar.teacher.judging import (
    RATING,
    VERDICT,
    Form,
    Judged,
    ask_judge,
    parse_rating,
    parse_verdict,
)
from feldspar.teacher.listening import Exchange, listening

__all__ = [
    "RATING",
    "VERDICT",
    "Budget",
    "BudgetSpent",
    "Exchange",
    "Form",
    "Journal",
    "Judged",
    "Refused",
    "Reply",
    "Spent",
    "StageStats",
    "Teacher",
    "ask_judge",
    "listening",
    "open_teacher",
    "parse_rating",
    "parse_verdict",
]
