"""The network, part by part: backbone, pyramid, heads."""

from retinanet.model.retinanet import RetinaNet
from retinanet.ops.network_outputs import Outputs

__all__ = ["Outputs", "RetinaNet"]
