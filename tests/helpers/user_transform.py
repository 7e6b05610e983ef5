"""A user's transform of training images, in a module that spawned workers can import."""

import torch


def flipped(image, boxes, labels):
    """Left and right exchanged."""
    width = image.shape[2]
    x1, y1, x2, y2 = boxes.unbind(1)
    return image.flip(2), torch.stack((width - x2, y1, width - x1, y2), dim=1), labels
