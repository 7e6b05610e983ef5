"""The feature extractor: any timm model that gives features at strides 8, 16 and 32 (C3, C4, C5), or finer ones."""

from __future__ import annotations

import difflib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.config.model_settings import BackboneSettings
from retinanet.model.pretrained import cached, flat, prefixes, wanted_names, without_prefix
from retinanet.weight_files.reader import read

LAST_LEVEL = 5
FETCHING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
"""Options of timm by which it reads or downloads files."""


class Backbone(nn.Module):
    """Images (B, 3, H, W) -> [C3, C4, C5], each (B, C, H / stride, W / stride); from C2 on where ``first_level`` is 2.

    Attributes:
        channels: of each feature.
        mean, std: the normalisation that timm states for the model, of R, G, B in 0..1.

    Raises:
        RequestError: for a name that timm does not know, a model without the three features, an unusable weight file.
        WorkError: where weights must be downloaded and cannot be.
    """

    def __init__(self, settings: BackboneSettings, load_weights: bool = True, first_level: int = 3) -> None:
        super().__init__()
        self.body = _create(settings, load_weights)
        if settings.stride_in_1x1:
            _move_strides(self.body, settings.name)
        if settings.norm_eps is not None:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    # PyTorch 2.11 refuses 0; to a variance above 0 the smallest number adds nothing.
                    module.eps = max(settings.norm_eps, torch.finfo(torch.float32).tiny)
        reductions = self.body.feature_info.reduction()
        strides = [2**level for level in range(first_level, LAST_LEVEL + 1)]
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            raise RequestError(
                f"model.backbone.name {settings.name!r} has features at strides {reductions}, "
                f"but RetinaNet needs {strides} here: choose another backbone"
                + (" or model.anchors.first_level 3" if missing == [4] else "")
            )
        # The last feature of a stride is the deepest.
        self.selected = [max(i for i, r in enumerate(reductions) if r == stride) for stride in strides]
        self.channels = [self.body.feature_info.channels()[i] for i in self.selected]
        cfg: dict[str, Any] = getattr(self.body, "pretrained_cfg", None) or {}
        self.mean = tuple(cfg.get("mean", (0.485, 0.456, 0.406)))
        self.std = tuple(cfg.get("std", (0.229, 0.224, 0.225)))
        self.frozen = self._freeze(settings.frozen_stages)
        self.frozen_norm = settings.frozen_norm
        if settings.frozen_norm:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return [features[i] for i in self.selected]

    def train(self, mode: bool = True) -> Backbone:
        """As in any module, but frozen parts stay in evaluation mode, so that their statistics do not change either."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.frozen_norm:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _freeze(self, stages: int) -> list[nn.Module]:
        """Freeze all modules up to the one that makes feature number ``stages``, in the order in which they run."""
        if stages == 0:
            return []
        names = self.body.feature_info.module_name()
        if stages > len(names):
            raise RequestError(
                f"model.backbone.frozen_stages is {stages}, but the backbone has {len(names)} parts: {', '.join(names)}"
            )
        order = dict(self.body.named_modules())
        # timm flattens the names of some models: "stages.0" is found as "stages_0".
        last = next((n for n in (names[stages - 1], names[stages - 1].replace(".", "_")) if n in order), None)
        if last is None:
            raise RequestError(
                f"model.backbone.frozen_stages is {stages}, but part {stages} of this backbone ({names[stages - 1]}) "
                "is no module of its own: choose another number"
            )
        frozen, reached = [], False
        for name, module in order.items():
            if name == last or name.startswith(f"{last}."):
                reached = True
            elif reached:
                break
            if name and (reached or not last.startswith(f"{name}.")):  # not a container that holds the last one
                module.requires_grad_(False)
                frozen.append(module)
        return frozen


def _move_strides(body: nn.Module, name: str) -> None:
    """From the 3 x 3 to the first 1 x 1 convolution of every bottleneck that halves the size."""
    from timm.models.resnet import Bottleneck

    halving = [block for block in body.modules() if isinstance(block, Bottleneck) and block.conv2.stride == (2, 2)]
    if not halving:
        raise RequestError(
            f"model.backbone.stride_in_1x1 is for ResNets of bottlenecks, such as resnet50; {name!r} has none with a "
            "stride to move: leave it out"
        )
    for block in halving:
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def _create(settings: BackboneSettings, load_weights: bool) -> Any:
    import timm

    if settings.name.split(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(settings.name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise RequestError(f"model.backbone.name: timm has no model {settings.name!r}; {hint}")
    options = dict(settings.options)
    fetching = sorted(FETCHING.intersection(options))
    if fetching:  # Settings also come with other people's checkpoints, which must not name other files to read.
        raise RequestError(f"model.backbone.options cannot set {fetching[0]}: use model.backbone.weights")
    state: dict[str, Tensor] = {}
    if load_weights and (path := _weight_file(settings)) is not None:
        state = _read(path, settings)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    elif load_weights and settings.weights == "imagenet":
        options["pretrained"] = True
    try:
        if options.get("pretrained") and not state:
            _require_hub(settings.name)
        with _without_notes():
            body = timm.create_model(settings.name, features_only=True, **options)
    except Exception as error:
        if not options.get("pretrained"):
            raise RequestError(
                f"timm cannot build {settings.name!r} as a feature extractor with options {settings.options}: {error}"
            ) from error
        if settings.weights == "imagenet" and not state:
            raise WorkError(
                f"the ImageNet weights of {settings.name!r} could not be downloaded ({first_line(error)}); connect to "
                "a network, or set model.backbone.weights to a local file, or to none to train from scratch"
            ) from error
        raise RequestError(
            f"{settings.weights} does not hold the weights of timm's {settings.name!r}: {first_line(error)}"
        ) from error
    if state:
        # timm leaves out what does not fit by name, without an error: a file of another network would go unnoticed.
        given = flat(state)
        missing = [name for name in wanted_names(body) if name.replace(".", "_") not in given]
        if missing:
            raise RequestError(
                f"{settings.weights} does not hold the weights of timm's {settings.name!r}: it has no {missing[0]}"
                + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            )
    return body


@contextmanager
def _without_notes() -> Iterator[None]:
    """A block in which timm does not warn about the tensors of the classifier, which a feature extractor leaves out."""
    logger = logging.getLogger("timm.models._builder")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _weight_file(settings: BackboneSettings) -> Path | None:
    """The file of the pretrained weights; None if there are none, or timm has to download them."""
    if settings.weights == "none":
        return None
    # The cache comes first: the hub's client would connect, and without a network try again for a minute.
    return cached(settings.name) if settings.weights == "imagenet" else Path(settings.weights)


def _require_hub(name: str) -> None:
    """
    Raises:
        OSError: the name of the hub's server is not known here, as without a network.
    """
    import timm
    from huggingface_hub import constants

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or getproxies():  # behind a proxy, names may be unknown here
        return
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError as error:
        raise OSError(f"{constants.ENDPOINT} cannot be reached: {error}") from error


def _read(path: Path, settings: BackboneSettings) -> dict[str, Tensor]:
    """A weight file's tensors for timm; nothing in the file is executed."""
    if not path.is_file():
        raise RequestError(f"model.backbone.weights: there is no file {path} (write none, imagenet, or a file's path)")
    try:
        tensors = read(path).tensors
    except RequestError as error:
        raise RequestError(f"model.backbone.weights: {error}") from error
    if not prefixes(tensors):
        return tensors
    import timm

    with torch.device("meta"):
        wanted = timm.create_model(settings.name, **settings.options).state_dict()
    return without_prefix(tensors, wanted.keys())
