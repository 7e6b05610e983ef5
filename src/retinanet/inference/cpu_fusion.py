"""The network for inference on a CPU: the same function in fewer passes over memory.

Batch normalisation is folded into the convolution before it. An activation or the addition of a shortcut that follows
is computed by the convolution itself where it writes its result. Weights are laid out once as oneDNN reads them. These
are the operations that ``torch.compile`` would call. Here they need neither a compiler nor a slow first call, and one
fused network takes images of every size.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from retinanet.inference import winograd
from retinanet.model.backbone import Backbone
from retinanet.model.retinanet import RetinaNet
from retinanet.ops.resize import padded_size

Activation = tuple[str, tuple[float, ...]]
NONE: Activation = ("none", ())
RELU: Activation = ("relu", ())
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: RELU,
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
    nn.SiLU: ("swish", ()),
    nn.Hardswish: ("hardswish", ()),
}
"""Activations as oneDNN names them."""
PLAIN = {"none": lambda x: x, "relu": F.relu, "hardtanh": F.relu6, "swish": F.silu, "hardswish": F.hardswish}
"""The same by PyTorch, by oneDNN's names."""
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
ADDITIONS = (operator.add, operator.iadd, torch.add)


def available(dtype: torch.dtype) -> bool:
    """Whether PyTorch has the fused operations for ``dtype`` here; they are not in its public interface."""
    operations = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        return dtype != torch.bfloat16 or bool(operations._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


class FusedConvolution(nn.Module):
    """A convolution, perhaps an addition, and an activation; weights, inputs and outputs are of ``dtype``."""

    def __init__(self, conv: nn.Conv2d, activation: Activation, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        weight = conv.weight.detach().to(dtype).contiguous()
        # A plain attribute, because such a tensor can be neither moved nor saved.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, None)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.activation = activation

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        kind, scalars = self.activation
        operation = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            result: Tensor = operation(x, self.weight, self.bias, *self.geometry, kind, list(scalars), "")
        elif other.shape[2:].numel() == 1:  # oneDNN in PyTorch 2.11 cannot add to a single pixel
            result = PLAIN[kind](operation(x, self.weight, self.bias, *self.geometry, "none", [], "") + other)
        else:
            activation = None if kind == "none" else kind
            result = operation.binary(
                x, other, self.weight, self.bias, *self.geometry, "add", 1.0, activation, list(scalars), ""
            )
        return result


@torch.no_grad()
def fuse(model: RetinaNet, dtype: torch.dtype = torch.float32, fast: bool = False) -> fx.GraphModule:
    """A network that computes what ``model`` does in evaluation mode, from images (B, 3, H, W) of ``dtype``.

    It has weights of its own: later changes of ``model`` do not reach it. A fused convolution runs where the last of
    what is fused stood, so nothing in between may write into its input.

    Args:
        fast: in float32, compute large 3 x 3 convolutions by :mod:`retinanet.inference.winograd`, whose results differ
            a little more from the exact ones, and whose weights take four times the memory.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    traced = _trace(model)
    height, width = (min(side, 2048) for side in padded_size([(64, 96)], model.settings.preprocessing))
    _Shapes(traced).run(torch.zeros(1, 3, height, width))
    _remove_identities(traced)
    _Fusion(traced, dtype, fast).run()
    traced.graph.lint()
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced.to(dtype)


class _Shapes(fx.Interpreter):
    """Run the network and note the shape of every intermediate tensor."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = result.shape if isinstance(result, Tensor) else None
        return result


class _Tracer(fx.Tracer):
    def __init__(self, opaque: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self.traced_func_name = "outputs"  # ``forward`` branches on its arguments
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, qualname: str) -> bool:
        # timm's batch normalisation with an activation inside is a subclass of PyTorch's.
        return isinstance(m, (nn.BatchNorm2d, *self.opaque)) or super().is_leaf_module(m, qualname)


def _trace(model: RetinaNet) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # Some backbones branch on the size of an image, which cannot be traced.
        return fx.GraphModule(model, _Tracer((Backbone,)).trace(model))


def _remove_identities(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(node.target), nn.Identity | nn.Dropout):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


class _Fusion:
    """One pass over a traced network."""

    def __init__(self, traced: fx.GraphModule, dtype: torch.dtype, fast: bool) -> None:
        self.traced, self.graph, self.dtype = traced, traced.graph, dtype
        self.fast = fast and dtype == torch.float32
        self.names: dict[tuple[Any, ...], str] = {}  # Pyramid levels share their convolutions.

    def run(self) -> None:
        for node in list(self.graph.nodes):
            conv = self.module(node)
            # Exactly this type: a subclass, such as one that pads by itself, computes something else.
            if type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
                self.fuse(node, conv)
        self.graph.eliminate_dead_code()

    def module(self, node: fx.Node | None) -> nn.Module | None:
        if node is None or node.op != "call_module":
            return None
        return self.traced.get_submodule(str(node.target))

    def fuse(self, node: fx.Node, conv: nn.Conv2d) -> None:
        end, activation, other = node, NONE, None
        norm = self.module(_only_user(end))
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            inner = getattr(norm, "act", None)  # timm's
            if inner is not None and not isinstance(inner, nn.Identity):
                if type(inner) not in ACTIVATIONS:
                    norm = None
                else:
                    activation = ACTIVATIONS[type(inner)]
        else:
            norm = None
        if norm is not None:
            end = _only_user(end) or end
        if activation == NONE:
            other = self.other_summand(end)
            if other is not None:
                end = _only_user(end) or end
            following = _only_user(end)
            activation = self.activation(following)
            if other is not None and activation != RELU:
                activation = NONE  # after an addition oneDNN offers no other
            if activation != NONE and following is not None:
                end = following
        key = (id(conv), id(norm), activation)
        if key not in self.names:
            self.names[key] = f"fused_{len(self.names)}"
            self.traced.add_module(self.names[key], self.fused(conv, norm, activation))
        arguments = (node.args[0],) if other is None else (node.args[0], other)
        with self.graph.inserting_before(end):
            new = self.graph.call_module(self.names[key], arguments)
        new.meta = end.meta
        end.replace_all_uses_with(new)

    def fused(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: Activation) -> nn.Module:
        if norm is not None:
            conv = fusion.fuse_conv_bn_eval(conv, norm)
        if self.fast and activation in (NONE, RELU) and winograd.fits(conv):
            return winograd.WinogradConvolution(conv.weight, conv.bias, relu=activation == RELU)
        return FusedConvolution(conv, activation, self.dtype)

    def other_summand(self, result: fx.Node) -> fx.Node | None:
        """The tensor added to the convolution's result, if the result has no other use and the sum has its shape."""
        addition = _only_user(result)
        if addition is None or addition.target not in ADDITIONS or addition.kwargs or len(addition.args) != 2:
            return None
        if addition.target is operator.iadd and addition.args[0] is not result:
            return None  # The other summand would be changed in place.
        others = [a for a in addition.args if a is not result]
        if len(others) != 1 or not isinstance(others[0], fx.Node):
            return None
        shapes = [n.meta.get("shape") for n in (others[0], result)]
        return others[0] if shapes[0] is not None and shapes[0] == shapes[1] else None

    def activation(self, node: fx.Node | None) -> Activation:
        module = self.module(node)
        if module is not None:
            return ACTIVATIONS.get(type(module), NONE)
        if node is not None and node.op == "call_function" and node.target in RELUS:
            return RELU
        return NONE


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
