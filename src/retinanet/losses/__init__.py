"""The losses of the paper, and their sum over a batch."""

from retinanet.losses.batch_sums import class_loss, detection_loss, normalizer
from retinanet.losses.box import box_loss
from retinanet.losses.class_weights import ClassBalance, class_balance
from retinanet.losses.criterion import Criterion
from retinanet.losses.focal import sigmoid_focal_loss
from retinanet.losses.ohem import hardest

__all__ = [
    "ClassBalance",
    "Criterion",
    "box_loss",
    "class_balance",
    "class_loss",
    "detection_loss",
    "hardest",
    "normalizer",
    "sigmoid_focal_loss",
]
