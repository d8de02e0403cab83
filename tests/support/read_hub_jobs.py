"""Reads many hub data sets in one process, as the server's processes do one each, without torch.

A job per line on standard input, its answer per line on standard output.
"""

import dataclasses
import json
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

missing = {"torch", *(["datasets"] if "--without-datasets" in sys.argv else [])}


class Missing(MetaPathFinder):
    """Not `sys.modules[…] = None`: libraries ask whether a name is in there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in missing:
            raise ImportError(f"{name} is missing here")


sys.meta_path.insert(0, Missing())

from service.intake.hub_job import HubJob  # noqa: E402 - what is missing is missing before
from service.intake.hub_reading import answer_job  # noqa: E402

os.chdir(os.environ["EMPTY_FOLDER"])
for line in sys.stdin:
    job = HubJob(**json.loads(line))
    Path(job.folder).mkdir()
    answer = answer_job(job, Path(job.folder))
    sys.stdout.write(json.dumps(dataclasses.asdict(answer)) + "\n")
sys.stdout.flush()
os._exit(0)
