"""Runs a notebook with the Python that runs the tests."""

import sys
from pathlib import Path
from typing import Any

import pytest


def run_notebook(notebook: Any, folder: Path) -> None:
    """Execute the cells of an nbformat notebook in ``folder``; an error in a cell is raised with its traceback.

    The test is skipped where nbclient or ipykernel is not installed.
    """
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    client.execute()
