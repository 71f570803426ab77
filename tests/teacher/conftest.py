"""Lets these tests import the fake teacher beside them, in whatever order pytest comes here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
