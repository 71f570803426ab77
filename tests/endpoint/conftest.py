"""Lets these tests import the server beside them, in whatever order pytest comes here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
