"""The job of a launcher (torchrun, SLURM) that a process belongs to, and whether it was restarted."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from retinanet.weight_files import metadata


def job() -> str | None:
    """The name of this job, which is the same after a restart; None without a launcher."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch == "none":  # torchrun's default, the same for all jobs
        return f"torchrun {platform.node()} {os.getppid()}"
    if launch is not None:
        return f"torchrun {launch}"
    number = os.environ.get("SLURM_JOB_ID")
    return None if number is None else f"slurm {number}"


def begun_by_this_job(folder: Path) -> bool:
    """Whether a launcher restarted this job, and ``folder`` holds the run that the job began."""
    restarts = [os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
    if job() is None or all(count in ("", "0") for count in restarts):
        return False
    try:
        facts = metadata.read(folder / "run.json")
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("job") == job()
