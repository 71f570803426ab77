"""What a user can do wrong, as one tree. Each message names the place and the cure.

FeldsparError
├── RecipeError      the recipe says something that cannot be
├── TaxonomyError    a leaf or a document cannot be read
├── TeacherError     the teacher or judge cannot be reached, or answers without sense
├── TrainingError    the student cannot be loaded or trained
├── RunError         the run directory is held by another process, or is not a run
└── DiskError        no room, or no right to write
"""

from __future__ import annotations

import os


class FeldsparError(Exception):
    """Something the user can mend; the command line shows it as one line, without a traceback."""

    exit_code = 1


class RecipeError(FeldsparError):
    exit_code = 2


class TaxonomyError(FeldsparError):
    exit_code = 3


class TeacherError(FeldsparError):
    exit_code = 4


class TrainingError(FeldsparError):
    exit_code = 5


class RunError(FeldsparError):
    exit_code = 6


class DiskError(FeldsparError):
    exit_code = 7


def disk_fault(error: OSError) -> str:
    """What the system says of a file, with its name: `No space left on device (runs/demo)`."""
    place = f" ({error.filename})" if error.filename else ""
    return f"{os.strerror(error.errno) if error.errno else error}{place}"
