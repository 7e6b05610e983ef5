"""CUDA graphs: the same outputs as the network itself, and the network itself where they cannot be recorded."""

import warnings

import pytest
import torch

from helpers.tiny_run import tiny
from retinanet.inference import cuda_graphs as module
from retinanet.inference.cuda_graphs import MOST_GRAPHS, MOST_SHAPES, Graphs
from retinanet.model import RetinaNet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RetinaNet(tiny().model, 2).eval()


def same(a, b):
    for mine, other in zip((*a.logits, *a.deltas), (*b.logits, *b.deltas)):
        torch.testing.assert_close(mine, other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@torch.inference_mode()
def test_network_itself_runs_where_nothing_can_be_recorded(model):
    graphs = Graphs(model)
    images = torch.rand(1, 3, 64, 64)
    same(graphs(images), model(images))  # a shape seen once is not recorded
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        same(graphs(images), model(images))
    same(graphs(images), model(images))  # and says so once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_graphs_give_the_networks_outputs(model):
    model = model.cuda()
    graphs = Graphs(model)
    for _ in range(3):
        for size in (64, 96):
            images = torch.rand(2, 3, size, size, device="cuda")
            same(graphs(images), model(images))
    for count in range(1, MOST_GRAPHS + 3):
        images = torch.rand(count, 3, 32, 32, device="cuda")
        for _ in range(2):
            same(graphs(images), model(images))


class Recording(Graphs):
    """Without a GPU: what is recorded is the network, and recording fails where it is told to."""

    failing = 0
    tried = 0

    def _record(self, images):
        self.tried += 1
        if self.failing:
            self.failing -= 1
            raise RuntimeError("out of memory")
        inputs = images.clone()
        outputs = self.network(inputs)
        return Replay(lambda: self.network(inputs), outputs), inputs, outputs


class Replay:
    def __init__(self, compute, outputs):
        self.compute, self.outputs = compute, outputs

    def replay(self):
        found = self.compute()
        for to, source in zip((*self.outputs.logits, *self.outputs.deltas), (*found.logits, *found.deltas)):
            to.copy_(source)


@torch.inference_mode()
def test_one_failure_does_not_turn_graphs_off(model, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 3)
    graphs = Recording(model)
    graphs.failing = 2
    images = torch.rand(1, 3, 32, 32)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(15):
            same(graphs(images), model(images))
    assert ["without CUDA graphs" in str(warning.message) for warning in warned] == [True]
    assert graphs.tried == 3
    for _ in range(3):
        images = torch.rand(1, 3, 32, 32)
        same(graphs(images), model(images))
    assert graphs.tried == 3, "one graph serves all images of its shape"


def test_shapes_that_came_once_are_forgotten():
    graphs = Recording(lambda images: images)
    for width in range(1, 3 * MOST_SHAPES):
        graphs(torch.empty(1, 3, 1, width))
    assert len(graphs._seen) <= MOST_SHAPES
    assert graphs.tried == 0
