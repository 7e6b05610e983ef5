"""The network, part by part: backbone, pyramid, heads."""

from retinanet.model.retinanet import Outputs, RetinaNet

__all__ = ["Outputs", "RetinaNet"]
