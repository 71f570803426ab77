"""Lets these tests import the tiny models of the training and student tests."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / room) for room in ("train", "student")]
