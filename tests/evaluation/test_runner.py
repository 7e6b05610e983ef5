"""Every image of a data set once, however the work is shared out."""

import itertools
import os
import pickle
import subprocess
import sys

import pytest
import torch

from helpers.random_weights import scatter
from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny
from retinanet.data import open_data
from retinanet.evaluation.runner import detect_all
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

NAMES = ("red", "green")


@pytest.fixture(scope="module")
def detector():
    """Random weights whose scores spread over 0..1."""
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, len(NAMES), load_weights=False)
    scatter(model, 0.3, None, -2.0)
    return Detector(model, NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return rectangles(tmp_path_factory.mktemp("data") / "squares", count=9)


@pytest.fixture(scope="module")
def data(folder):
    """Images of two padded sizes, so that batches are not in the order of the data."""
    data = open_data(folder, "val")
    assert {data.size(i)[1] <= 64 for i in range(9)} == {True, False}
    return data


@pytest.fixture(scope="module")
def alone(detector, data):
    """Each image by itself, through the front door."""
    return [detector.predict(data.path(i)) for i in range(len(data))]


def assert_same(found, alone):
    for index, one in found.items():
        assert isinstance(one, Detections)
        assert one.class_names == NAMES
        assert len(one) > 3
        assert one.labels.tolist() == alone[index].labels.tolist()
        torch.testing.assert_close(one.scores, alone[index].scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.boxes, alone[index].boxes, rtol=0, atol=1e-3)


def test_images_differ(alone):
    """What the tests below tell apart."""
    assert len({tuple(one.scores.tolist()[:3]) for one in alone}) == len(alone)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (2, 1), (4, 0), (100, 0), (100, 1)])
def test_every_image_once(detector, data, alone, batch_size, workers):
    reads, progress = [], []
    wide = sum(data.size(i)[1] > 64 for i in range(9))
    largest = max(wide, 9 - wide)  # a batch is of one padded size
    counted = Counted(data, reads)
    found = detect_all(
        detector, counted, batch_size=batch_size, workers=workers, on_progress=lambda *both: progress.append(both)
    )
    assert list(found) == list(range(9))
    assert_same(found, alone)
    if workers == 0:  # a worker's reads are counted in the worker
        assert sorted(reads) == list(range(9))
    assert progress[-1] == (9, 9)
    done = [0, *(count for count, _ in progress)]
    assert max(after - before for before, after in itertools.pairwise(done)) == min(batch_size, largest)


class Counted:
    """A data set that notes what is read."""

    def __init__(self, data, reads):
        self.data, self.reads, self.size = data, reads, data.size

    def __len__(self):
        return len(self.data)

    def read(self, index):
        self.reads.append(index)
        return self.data.read(index)


def test_some_images_in_the_order_asked_for(detector, data, alone):
    reads = []
    found = detect_all(detector, Counted(data, reads), indices=[8, 1, 5, 1, 0, 8])
    assert list(found) == [8, 1, 5, 0]
    assert sorted(reads) == [0, 1, 5, 8]
    assert_same(found, alone)
    assert detect_all(detector, data, indices=[]) == {}


def test_threshold(detector, data, alone):
    limit = float(alone[2].scores[3])
    found = detect_all(detector, data, indices=[2], threshold=limit)[2]
    assert found.scores.tolist() == pytest.approx(alone[2].scores[:3].tolist(), abs=1e-5)
    assert len(detect_all(detector, data, indices=[2], threshold=0.9999)[2]) == 0


# Not a network, whose imports take seconds: an image of w pixels has w % 3 boxes that tell which image it is.
PROCESS = """
import pickle, sys
import torch, torch.distributed as dist
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.data import open_data
from retinanet.inference.detections import Detections
from retinanet.evaluation.runner import detect_all

class Detector:
    class_names = ("red", "green")
    settings = ModelSettings(preprocessing=PreprocessingSettings(resize="none"))
    preprocessing = settings.preprocessing

    def require(self, options):
        pass

    def detect(self, batch, options):
        return [self.look(image, int(w)) for image, (h, w) in zip(batch.images, batch.originals)]

    def look(self, image, width):
        scores = torch.full((width % 3,), image[:, :, :width].sum().item() / 1e7)
        return Detections(torch.full((width % 3, 4), width).float(), scores, torch.arange(width % 3), self.class_names)

folder, work, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=2)
data = open_data(folder, "val")
for name, chosen in (("all", None), ("some", [7, 2, 2, 3]), ("one", [4])):
    progress = []
    found = detect_all(
        Detector(), data, indices=chosen, rank=rank, world=2, on_progress=lambda *both: progress.append(both)
    )
    with open(f"{work}/{name}{rank}", "wb") as file:
        pickle.dump((progress[-1:], found), file)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_the_images_and_both_have_them_all(folder, data, tmp_path):
    command = [sys.executable, "-c", PROCESS, folder, tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([*command, str(rank)], env=environment, **pipes) for rank in range(2)]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
    finally:
        for process in processes:  # one would wait for the other
            process.kill()
    # what each process looked at: together every image, none twice; of one image the second process has none
    shares = {"all": ([(5, 5)], [(4, 4)]), "some": ([(2, 2)], [(1, 1)]), "one": ([(1, 1)], [])}
    counts = set()
    for name, chosen in (("all", range(9)), ("some", [7, 2, 3]), ("one", [4])):
        for rank in range(2):
            progress, found = pickle.loads((tmp_path / f"{name}{rank}").read_bytes())
            assert progress == shares[name][rank]
            assert list(found) == list(chosen)
            for index, one in found.items():
                width, count = data.size(index)[1], data.size(index)[1] % 3
                counts.add(count)
                assert one.class_names == NAMES
                assert one.boxes.tolist() == [[width] * 4] * count
                assert one.labels.tolist() == list(range(count))
                score = data.read(index).sum().item() / 1e7
                assert one.scores.tolist() == pytest.approx([score] * count, rel=1e-6)
    assert counts == {0, 1, 2}
