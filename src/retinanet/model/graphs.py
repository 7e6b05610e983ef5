"""The network on an NVIDIA GPU, launched as one CUDA graph instead of some hundred kernels one by one.

A graph belongs to one shape of input. It is recorded when a shape comes for the second time, so pictures of ever other
shapes cost nothing but the launches that they cost anyway.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retinanet.errors import first_line
from retinanet.model.retinanet import Outputs

MOST = 16  # graphs kept, the last used; each holds the memory of its activations


class Graphs:
    """Calls ``network``, a function of pictures (B, 3, H, W) on a GPU, through graphs.

    What a call returns is overwritten by the next call with pictures of the same shape.
    """

    def __init__(self, network: Callable[[Tensor], Outputs]) -> None:
        self.network = network
        self._seen: Counter[torch.Size] = Counter()
        self._recorded: OrderedDict[torch.Size, tuple[Any, Tensor, Outputs]] = OrderedDict()
        self._fails = False

    def __call__(self, images: Tensor) -> Outputs:
        shape = images.shape
        self._seen[shape] += 1
        if self._fails or self._seen[shape] < 2:
            return self.network(images)
        if shape not in self._recorded:
            try:
                self._recorded[shape] = self._record(images)
            except RuntimeError as error:
                self._fails = True
                reason = first_line(error)
                warnings.warn(f"the network runs without CUDA graphs, which is slower: {reason}", stacklevel=2)
                return self.network(images)
            if len(self._recorded) > MOST:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(shape)
        graph, inputs, outputs = self._recorded[shape]
        inputs.copy_(images)
        graph.replay()
        return outputs

    def _record(self, images: Tensor) -> tuple[Any, Tensor, Outputs]:
        if images.device.type != "cuda":  # PyTorch would record nothing without a word
            raise RuntimeError(f"they are for NVIDIA GPUs, and the pictures are on {images.device}")
        inputs = images.clone()
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):  # once outside of the graph: libraries choose their algorithms and buffers
            self.network(inputs)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.network(inputs)
        return graph, inputs, outputs
