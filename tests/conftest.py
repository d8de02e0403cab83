"""What all tests share: settings that must stand before torch is loaded, in this process and in
those that tests start, and how hypothesis draws."""

import os

from hypothesis import HealthCheck, settings

# Tests share the cores with one another: threads that spin while they wait would starve them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")

# The same examples in every run, however busy the machine is.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
