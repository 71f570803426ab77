"""Lets these tests import the fake teacher of the teacher's own tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "teacher"))
