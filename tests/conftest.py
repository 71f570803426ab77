"""For all tests: torch on one thread, since small models are waiting, not computing, on more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
