"""Formerly the training loop."""

raise ImportError("retinanet.training.loop has become retinanet.training.trainer: from retinanet import train")
