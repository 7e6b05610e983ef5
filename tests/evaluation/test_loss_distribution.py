"""Figure 4: which examples carry the loss, against sorting every example."""

import numpy as np
import pytest
import torch

from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny
from retinanet import Detector
from retinanet.config.settings import MatchingSettings
from retinanet.data import open_data
from retinanet.evaluation.loss_distribution import BINS, LIMIT, LogitCounts, count_logits, summary
from retinanet.losses.pointwise import focal
from retinanet.model import RetinaNet
from retinanet.ops.image_batch import ImageBatch
from retinanet.ops.iou_assigner import match


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data(rectangles(tmp_path_factory.mktemp("data") / "squares", 6), "val")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, 2)
    torch.nn.init.normal_(model.class_subnet.output.weight, std=0.5)
    return Detector(model, ["red", "green"])


def examples(detector, data, index):
    """x_t of the positives and negatives of one image, the long way."""
    source = data.read(index)
    image = detector.prepare(source)
    height, width = image.resized
    batch = ImageBatch.stack([image])
    logits = torch.cat(detector.forward(batch).logits, dim=1)[0]
    scale = torch.tensor([width / source.shape[2], height / source.shape[1]] * 2)
    boxes, labels = torch.as_tensor(data.boxes(index)) * scale, torch.as_tensor(data.labels(index))
    anchors = torch.cat(detector.model.anchors(*batch.images.shape[2:]))
    targets = match(anchors, [boxes], [labels], MatchingSettings()).labels[0]
    positives, negatives = [], []
    for row, label in zip(logits.tolist(), targets.tolist()):
        if label != -2:
            for k, logit in enumerate(row):
                (positives if k == label else negatives).append(logit if k == label else -logit)
    return positives, negatives


def test_curves_are_those_of_all_examples_sorted(data, detector):
    counted = count_logits(detector, data, MatchingSettings(), batch_size=2)
    pairs = [examples(detector, data, i) for i in range(len(data))]
    for gamma in (0.0, 2.0):
        found = counted.curves(gamma)
        for k, curve in enumerate((found.positives, found.negatives)):
            x_t = torch.tensor([x for pair in pairs for x in pair[k]], dtype=torch.float64)
            assert curve.examples == len(x_t) > 0
            losses = focal(x_t, gamma).sort().values.numpy()
            wanted = np.concatenate([[0.0], np.cumsum(losses) / losses.sum()])
            at = np.linspace(0, 1, len(wanted))
            np.testing.assert_allclose(np.interp(at, curve.fraction, curve.cumulative), wanted, atol=0.01)
            assert curve.hardest(0.01) == pytest.approx(1 - np.interp(0.99, at, wanted), abs=0.01)


def test_equal_examples_share_the_loss_evenly():
    counts = np.zeros(BINS, dtype=np.int64)
    counts[int((2.0 + LIMIT) * BINS / (2 * LIMIT))] = 1000
    for gamma in (0.0, 2.0):
        curve = LogitCounts(counts, counts).curves(gamma).negatives
        np.testing.assert_allclose(curve.cumulative, curve.fraction, atol=1e-9)
        assert curve.hardest(0.01) == pytest.approx(0.01)


def test_gamma_concentrates_the_loss_on_hard_negatives():
    x_t = np.random.default_rng(0).normal(4, 1.5, 100_000)
    counts = np.bincount(((x_t + LIMIT) * BINS / (2 * LIMIT)).astype(int), minlength=BINS)
    found = {gamma: LogitCounts(counts, counts).curves(gamma) for gamma in (0.0, 0.5, 1.0, 2.0)}
    shares = [f.negatives.hardest() for f in found.values()]
    assert shares == sorted(shares)
    assert len(summary(found)) == 4


def test_nothing_to_look_at_gives_a_straight_line():
    none = np.zeros(BINS, dtype=np.int64)
    assert LogitCounts(none, none).curves(2.0).positives.examples == 0
