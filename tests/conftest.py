import os
import tempfile
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Its kernels run without a GPU then; Triton looks at this when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No test downloads pretrained weights, or takes those in the user's caches. Tests of downloads change this.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = os.environ["TORCH_HOME"] = str(Path(tempfile.gettempdir()) / "retinanet-tests-have-no-cache")

REAL = Path(__file__).parents[1] / "../shared/data"
SLOW = {"bench", "exporting", "parity", "predict", "serve", "test_cpu_fusion"}
"""Folders and files of which every test counts as slow: large networks, other runtimes, servers, videos."""


def pytest_collection_modifyitems(items):
    for item in items:
        if {item.path.parent.name, item.path.stem} & SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def real():
    """The folder of a published data set."""

    def folder(name):
        if not (REAL / name).is_dir():
            pytest.skip(f"the data set {name} is not in ../shared/data")
        return REAL / name

    return folder


@pytest.fixture
def set_threads():
    """Sets PyTorch's number of threads for the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
