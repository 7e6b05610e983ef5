"""Which job of a launcher (torchrun, SLURM) a process belongs to, and whether the job was restarted."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from retinanet.weight_files import metadata


def job() -> str | None:
    """What a launcher calls this job, the same after a restart; None where no launcher says."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    if launch == "none":  # torchrun's default: the launcher itself tells one job from another
        return f"torchrun {platform.node()} {os.getppid()}"
    if launch is not None:
        return f"torchrun {launch}"
    number = os.environ.get("SLURM_JOB_ID")
    return None if number is None else f"slurm {number}"


def begun_by_this_job(folder: Path) -> bool:
    """Whether this is a job that was restarted (by torchrun or SLURM), and ``folder`` the run that it began."""
    restarts = [os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
    if job() is None or all(count in ("", "0") for count in restarts):
        return False
    try:
        facts = metadata.read(folder / "run.json")
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("job") == job()
