"""Recognises a file of a backbone's weights by its contents: which timm model they are of.

Names and shapes of its tensors are compared with those of timm's models, which are built without memory (on the meta
device). The name of the file and what lies beside it only say which models to compare first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from retinanet.model.pretrained import flat, prefixes
from retinanet.weight_files.reader import Contents

Shapes = dict[str, tuple[int, ...]]

COMMON = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *(
        "wide_resnet50_2",
        "resnet50d",
        "resnet26d",
        "resnet18d",
        "mobilenetv2_100",
        "mobilenetv2_050",
        "mobilenetv2_140",
    ),
    *("mobilenetv3_large_100", "mobilenetv3_small_100", "mobilenetv3_small_050", "mobilenetv4_conv_small"),
    *("mobilenetv4_conv_medium", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
    *("efficientnet_lite0", "convnext_atto", "convnext_pico", "convnext_nano", "convnext_tiny", "convnext_small"),
    *("convnext_base", "regnety_002", "regnety_008", "regnety_016", "regnetx_008", "densenet121", "darknet53"),
    *("cspdarknet53", "vgg16_bn", "hrnet_w18", "swin_tiny_patch4_window7_224"),
)
"""Backbones that people use, compared before the other ones."""
MOST = 160  # models compared; each takes a tenth of a second
FEWEST = 5  # convolutions of a backbone
COUNTER = "num_batches_tracked"
PADDED_TWIN = "tf_{}"
"""timm's name of the model with the same tensors that pads as TensorFlow does."""
OTHERS = (
    ("a language model", r"(^|\.)(lm_head|embed_tokens|wte|word_embeddings)\."),
    ("an Ultralytics YOLO", r"^(model\.)*\d+\.(conv|cv\d|m|dfl)\."),
    ("a DETR", r"(^|\.)(transformer\.decoder|class_embed|query_embed|bbox_embed)\b"),
    ("a Faster R-CNN or Mask R-CNN", r"^(roi_heads|rpn|rpn_head|roi_head|proposal_generator)\."),
    ("a CLIP model", r"^(text_projection|logit_scale|visual\.)"),
    ("a diffusion model", r"(^|\.)(down_blocks|diffusion_model)\."),
    ("a segmentation model", r"^(decode_head|aux_classifier|segmentation_head)\."),
    ("torchvision's MobileNet or EfficientNet, whose tensors have other names in timm", r"^features\.\d+\.\d+\.weight"),
    ("a vision transformer", r"(^|\.)(blocks|encoder\.layers?)\.\d+\.(attn|attention|self_attention)\."),
    ("a SSD or FCOS detector", r"^head\.(classification_head|regression_head)\."),
)
"""Kinds of models, and patterns that a name of theirs has."""


class BackboneFile(NamedTuple):
    """A weight file of a timm model."""

    path: Path
    name: str
    """timm's name of the model, without a tag."""
    twin: str | None = None
    """A model with the same tensors and other padding, which the file may be of as well."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    """The normalisation that is stated beside the file, if it differs from that of timm's model."""


def recognise(contents: Contents, name: str | None = None) -> BackboneFile | None:
    """The backbone in a file; None if it is none that can be recognised.

    Args:
        name: compare with this timm model only.
    """
    import timm

    below = list(_below_prefixes(contents))
    if not below:
        return None
    hints = _hints(contents)
    for candidate in [name] if name is not None else _candidates(below, hints):
        if not any(_fits(candidate, shapes) for shapes in below):
            continue
        twin = PADDED_TWIN.format(candidate)
        known = twin in timm.list_models() and any(_fits(twin, shapes) for shapes in below)
        mean, std = _normalisation(contents, candidate)
        return BackboneFile(contents.path, candidate, twin if known else None, mean, std)
    return None


def seems(contents: Contents) -> str | None:
    """The kind of model that the tensors seem to be of; None if they are like none of those in ``OTHERS``."""
    return next((what for what, names in OTHERS if any(re.search(names, name) for name in contents.tensors)), None)


def _below_prefixes(contents: Contents) -> Iterator[Shapes]:
    """Names and shapes of all tensors, then of those below each known prefix."""
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items() if not name.endswith(COUNTER)}
    for prefix in ("", *sorted(prefixes(shapes), key=len)):
        below = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        if sum(len(shape) == 4 for shape in below.values()) >= FEWEST:
            yield below


def _candidates(below: Iterable[Shapes], hints: str) -> list[str]:
    """Names of timm models whose first convolution is in the file, the likeliest first."""
    import timm

    names = timm.list_models()
    hinted = sorted((name for name in names if _plain(name) in hints), key=len, reverse=True)
    keys = set().union(*(flat(shapes) for shapes in below))
    ordered = list(dict.fromkeys([*hinted, *COMMON, *sorted(names, key=lambda name: (len(name), name))]))
    return [name for name in ordered if name in names and _first_convolution(name) in keys][:MOST]


def _first_convolution(name: str) -> str | None:
    import timm

    config = timm.get_pretrained_cfg(name)
    first = config.first_conv if config is not None else None
    first = first[0] if isinstance(first, tuple | list) and first else first
    return f"{first}.weight".replace(".", "_") if isinstance(first, str) else None


def _fits(name: str, shapes: Shapes) -> bool:
    """Whether all tensors of a timm model's features are there, and no others of the same blocks."""
    import timm

    try:
        with torch.device("meta"):
            body = timm.create_model(name, features_only=True)
            whole = timm.create_model(name).state_dict() if _likely(body, shapes) else {}
    except Exception:  # a model that gives no features
        return False
    if not whole:
        return False
    known = flat(whole)
    blocks = {key.partition(".")[0] for key in whole}
    return not [key for key in shapes if key.replace(".", "_") not in known and key.partition(".")[0] in blocks]


def _likely(body: torch.nn.Module, shapes: Shapes) -> bool:
    there = flat(shapes)
    wanted = {key.removeprefix("model."): tensor for key, tensor in body.state_dict().items()}
    return all(
        there.get(key.replace(".", "_")) == tuple(tensor.shape)
        for key, tensor in wanted.items()
        if not key.endswith(COUNTER)
    )


def _hints(contents: Contents) -> str:
    """The name of the file, and of the model that is named beside its tensors, in small letters without signs."""
    about = contents.about
    config, written = about.get("config"), about.get("metadata")
    stated = [about.get("arch"), about.get("architecture")]
    stated += [source.get("architecture") for source in (config, written) if isinstance(source, Mapping)]
    return " ".join(_plain(text) for text in (contents.path.stem, *stated) if isinstance(text, str))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _normalisation(contents: Contents, name: str) -> tuple[Any, Any]:
    """Mean and standard deviation in a config.json as timm writes it, if they differ from those of the model."""
    import timm

    config = contents.about.get("config")
    stated = config.get("pretrained_cfg") if isinstance(config, Mapping) else None
    known = timm.get_pretrained_cfg(name)
    if not isinstance(stated, Mapping) or known is None:
        return None, None
    pair = [_three(stated.get("mean")), _three(stated.get("std"))]
    same = pair == [tuple(known.mean), tuple(known.std)]
    return (None, None) if None in pair or same else (pair[0], pair[1])


def _three(value: Any) -> tuple[float, float, float] | None:
    """Three numbers of a JSON text; None for anything else."""
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(x, float | int) for x in value):
        return None
    red, green, blue = map(float, value)
    return red, green, blue
