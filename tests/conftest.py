"""What must be set before torch is loaded, in this process and in those that tests start."""

import os

# Tests share the cores with one another: threads that spin while they wait would starve them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
