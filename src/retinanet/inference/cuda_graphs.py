"""The network on an NVIDIA GPU, launched as one CUDA graph instead of some hundred kernels one by one.

A graph belongs to one shape of input. It is recorded when a shape comes for the second time, so that images of ever
changing shapes cost no more than without graphs.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retinanet.common.errors import first_line
from retinanet.ops.network_outputs import Outputs

MOST_GRAPHS = 16  # the last used are kept; each holds the memory of its activations
MOST_SHAPES = 256  # shapes that are remembered as seen once
PAUSE = 100  # calls without a new graph after recording failed; doubled each further time in a row
LONGEST_PAUSE = 100_000


class Graphs:
    """Call ``network``, a function of images (B, 3, H, W) on a GPU, through graphs.

    The next call with images of the same shape overwrites what a call returned. Where a graph cannot be recorded, for
    example for lack of memory, the network itself runs, and recording is tried again later.
    """

    def __init__(self, network: Callable[[Tensor], Outputs]) -> None:
        self.network = network
        self._seen: OrderedDict[torch.Size, None] = OrderedDict()
        self._recorded: OrderedDict[torch.Size, tuple[Any, Tensor, Outputs]] = OrderedDict()
        self._pause = PAUSE
        self._calls_until_next = 0

    def __call__(self, images: Tensor) -> Outputs:
        shape = images.shape
        if shape not in self._recorded and not self._try(images):
            return self.network(images)
        self._recorded.move_to_end(shape)
        graph, inputs, outputs = self._recorded[shape]
        inputs.copy_(images)
        graph.replay()
        return outputs

    def _try(self, images: Tensor) -> bool:
        """Record a graph if the shape was seen before and no pause is on; return whether there is one now."""
        shape = images.shape
        known = shape in self._seen
        self._seen[shape] = None
        self._seen.move_to_end(shape)
        if len(self._seen) > MOST_SHAPES:
            self._seen.popitem(last=False)
        self._calls_until_next = max(0, self._calls_until_next - 1)
        if not known or self._calls_until_next > 0:
            return False
        try:
            self._recorded[shape] = self._record(images)
        except RuntimeError as error:
            if self._pause == PAUSE:  # the first time in a row
                reason = first_line(error)
                warnings.warn(f"the network runs without CUDA graphs, which is slower: {reason}", stacklevel=3)
            self._calls_until_next = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        self._pause = PAUSE
        if len(self._recorded) > MOST_GRAPHS:
            self._recorded.popitem(last=False)
        return True

    def _record(self, images: Tensor) -> tuple[Any, Tensor, Outputs]:
        if images.device.type != "cuda":  # PyTorch would silently record nothing.
            raise RuntimeError(f"CUDA graphs need images on an NVIDIA GPU, not on {images.device}")
        inputs = images.clone()
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):  # Once outside of the graph: libraries choose their algorithms and buffers.
            self.network(inputs)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, such as pinning the memory of loaded images, does not spoil the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self.network(inputs)
        return graph, inputs, outputs
