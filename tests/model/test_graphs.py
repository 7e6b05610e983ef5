"""CUDA graphs: the same outputs as the network itself, and the network itself where they cannot be recorded."""

import pytest
import torch

from retinanet.model import RetinaNet
from retinanet.model.graphs import MOST, Graphs
from tiny_run import tiny


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
    for count in range(1, MOST + 3):
        images = torch.rand(count, 3, 32, 32, device="cuda")
        for _ in range(2):
            same(graphs(images), model(images))
