"""Types of settings with their bounds, which :mod:`retinanet.common.fields` checks."""

from __future__ import annotations

from typing import Annotated, Literal

from retinanet.common.fields import Within

Normalization = Literal["none", "batch", "group"]
Interpolation = Literal["antialias", "pillow", "plain", "opencv"]
BoxLoss = Literal["smooth_l1", "l1", "giou"]

Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, 1e6, above=True)]
NotNegative = Annotated[float, Within(0, 1e6)]
Score = Annotated[float, Within(0, 1, below=True)]
Mean = Annotated[float, Within(-1000, 1000)]
Std = Annotated[float, Within(1e-6, 1000)]
"""A smaller divisor would make pixels infinite in float16."""
Zoom = Annotated[float, Within(0.01, 100)]
Count = Annotated[int, Within(1, 1e9)]
Width = Annotated[int, Within(1, 8192)]
"""Channels of a convolution."""
Pixels = Annotated[int, Within(1, 16384)]
"""Side of an image. An image of 8192 x 16384 takes 1.6 GB as float32."""
