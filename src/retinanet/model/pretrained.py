"""Pretrained weights of timm's models: the files of them in this machine's caches, and the tensors of a backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch

PREFIXES = ("module.", "model.", "backbone.", "encoder.", "body.", "features.", "_orig_mod.")
"""What wrappers, detectors and segmentation models put before the names of a backbone's tensors."""
DEEPEST = 4  # prefixes before a name
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
TORCHVISION = {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"}
"""Models whose tensors have the same names and meaning in torchvision and in timm."""


def without_prefix(tensors: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """The entries of ``tensors`` below the prefix that has most of the ``wanted`` names, without the prefix."""
    best, most = dict(tensors), len(tensors.keys() & wanted)
    for prefix in prefixes(tensors):
        below = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if (count := len(below.keys() & wanted)) > most:
            best, most = below, count
    return best


def prefixes(names: Collection[str]) -> set[str]:
    """Sequences of the known prefixes that some of the names begin with."""
    found: set[str] = set()
    for name in names:
        prefix = ""
        for _ in range(DEEPEST):
            step = next((p for p in PREFIXES if name.startswith(p, len(prefix))), None)
            if step is None:
                break
            prefix += step
            found.add(prefix)
    return found


def wanted_names(body: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a timm feature extractor, as timm's weight files have them.

    timm wraps some models in one named "model". In the names of others it writes "_" for a dot; see :func:`flat`.
    """
    return {name.removeprefix("model."): tuple(tensor.shape) for name, tensor in body.named_parameters()}


def flat(names: Mapping[str, Any]) -> dict[str, Any]:
    """The entries under names that timm's flattening does not change."""
    return {name.replace(".", "_"): value for name, value in names.items()}


def cached(name: str) -> Path | None:
    """The file with the ImageNet weights of a timm model in the cache of the hub's client, or in that of torch.hub.

    Nothing is downloaded. Without the weights that timm takes, those of torchvision are as good.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    for file in [config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES:
        path = try_to_load_from_cache(config.hf_hub_id, file) if config.hf_hub_id else None
        if isinstance(path, str):
            return Path(path)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if config.url and (found := folder / PurePosixPath(urlsplit(config.url).path).name).is_file():
        return found
    base = name.partition(".")[0]
    return next(iter(sorted(folder.glob(f"{base}-*.pth"))), None) if base in TORCHVISION else None
