"""The network of a detector, computed in the fastest way that its device offers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retinanet.common.errors import first_line
from retinanet.common.precision import DTYPES, Precision
from retinanet.inference import cpu_fusion, cuda_graphs
from retinanet.model.retinanet import Outputs, RetinaNet
from retinanet.ops.resize import padded_size

LARGEST_TRIAL = 2048 * 2048
"""The most pixels that a fused network is tried on: settings of a file may ask for far larger images."""


class FastNetwork:
    """A function of normalised images, (B, 3, H, W) float32 on the model's device, to :class:`Outputs`.

    It runs ``model`` as it is until :meth:`fuse` is called.

    Attributes:
        model: the network; other weights, or another device, need another :meth:`fuse`.
        precision: in which it computes.
    """

    def __init__(self, model: RetinaNet, precision: Precision) -> None:
        self.model, self.precision = model, precision
        self.fast: bool | None = None
        """What :meth:`fuse` was called with; None before the first call."""
        self._fused: Callable[[Tensor], Outputs] | None = None
        self._fused_for = self.device

    @property
    def device(self) -> torch.device:
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device  # an exported network has none

    @property
    def fused(self) -> bool:
        """Whether a fused copy or CUDA graphs compute."""
        return self._fused is not None and self.device == self._fused_for

    def fuse(self, fast: bool = False) -> None:
        """Compute faster from now on; see :meth:`retinanet.Detector.fuse`."""
        self._fused, self.fast = None, fast
        dtype = DTYPES[self.precision]
        if self.device.type == "cuda":
            self._fused, self._fused_for = cuda_graphs.Graphs(self._plain), self.device
        if self.device.type != "cpu" or not cpu_fusion.available(dtype):
            return
        try:
            network = cpu_fusion.fuse(self.model, dtype, fast)
            preprocessing = self.model.settings.preprocessing
            height, width = padded_size([(1, 1)], preprocessing)
            if height * width > LARGEST_TRIAL:
                height = width = preprocessing.multiple
            network(torch.zeros((1, 3, height, width), dtype=dtype))
        except Exception as error:  # Some backbones cannot be traced. They work as they are, only slower.
            reason = first_line(error)
            warnings.warn(f"the network stays as it is, which is slower: {reason}", stacklevel=3)
        else:
            self._fused, self._fused_for = network, self.device

    def __call__(self, images: Tensor) -> Outputs:
        if self._fused is not None and self.fused:
            return self._fused(images.to(DTYPES[self.precision]) if images.device.type == "cpu" else images)
        return self._plain(images)

    def _plain(self, images: Tensor) -> Outputs:
        # No cache of converted weights on GPUs: a CUDA graph would read tensors that it does not own.
        kind, dtype = self.device.type, DTYPES[self.precision]
        with torch.autocast(kind, dtype=dtype, enabled=self.precision != "fp32", cache_enabled=kind != "cuda"):
            outputs: Outputs = self.model(images)
        return outputs

    def __getstate__(self) -> dict[str, Any]:
        # Neither oneDNN's weights nor CUDA graphs can be copied or sent to another process.
        return self.__dict__ | {"_fused": None}
