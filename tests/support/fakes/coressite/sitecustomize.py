"""A machine with FAKE_CORES cores, as Python's processes see it."""

import os

if os.environ.get("FAKE_CORES"):
    os.cpu_count = lambda: int(os.environ["FAKE_CORES"])
