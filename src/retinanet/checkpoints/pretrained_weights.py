"""Pretrained weights that training can start from: which of them this machine has or can download, and the download."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from retinanet.checkpoints.download import cache_path, cached_file, reachable
from retinanet.checkpoints.hub import fetch
from retinanet.checkpoints.locate import TORCHVISION
from retinanet.common.errors import RequestError, WorkError
from retinanet.model.pretrained import cached

COCO = "retinanet_resnet50_fpn_v2"
"""torchvision's better RetinaNet: 41.5 AP on COCO."""
SHARE = 0.2  # of a budget, the most that a download takes
Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, the bytes so far, and those of the whole file where that is known."""


@dataclass
class PretrainedWeights:
    """The pretrained weights that this machine can have, by the cache and by one short attempt to connect.

    Args:
        progress: shows a download.
        budget: seconds of the run; a download that takes a fifth of it is given up.
    """

    progress: Progress | None = None
    budget: float | None = None
    seconds: float = 0.0
    """Spent on connecting and downloading."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names whose download failed, and why."""

    @cached_property
    def offline(self) -> str:
        """Why nothing can be downloaded; empty if there is a network."""
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        begun = time.monotonic()
        there = reachable(constants.ENDPOINT)
        self.seconds += time.monotonic() - begun
        return "" if there else f"no network ({constants.ENDPOINT} cannot be reached)"

    def available(self, name: str) -> bool:
        """Whether the weights are in the cache, or there is a network.

        Args:
            name: ``COCO``, or the name of a timm model.
        """
        if name in self.failed:
            return False
        return self._cached(name) is not None or (not self.offline and (name == COCO or _has_weights(name)))

    def obtain(self, name: str) -> str:
        """Download the weights if they are not in the cache, and return where they come from.

        Raises:
            WorkError: they cannot be downloaded now.
            RequestError: there are no such weights.
        """
        if self._cached(name) is not None:
            return "from the cache"
        if self.offline:
            raise WorkError(f"the weights of {name} are not in the cache, and {self.offline}")
        begun = time.monotonic()
        size = 0

        def watch(done: int, total: int | None) -> None:
            nonlocal size
            size = done
            if self.budget is not None and time.monotonic() - begun > SHARE * self.budget:
                raise WorkError(f"{name}: only {done / 1e6:.0f} MB came in {SHARE:.0%} of the budget")
            if self.progress is not None:
                self.progress(name, done, total)

        try:
            if name == COCO:
                cached_file(_coco_url(), watch)
            else:
                _download(name, watch)
        except (RequestError, WorkError) as error:
            self.failed[name] = str(error)
            raise
        finally:
            took = time.monotonic() - begun
            self.seconds += took
        return f"downloaded, {size / 1e6:.0f} MB in {took:.0f} s"

    def _cached(self, name: str) -> Path | None:
        if name != COCO:
            return cached(name)
        path = cache_path(_coco_url())
        return path if path.is_file() else None


def _coco_url() -> str:
    from torchvision.models import detection

    return str(getattr(detection, TORCHVISION[COCO]).COCO_V1.url)


def _has_weights(name: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(name)
    return config is not None and config.has_weights


def _download(name: str, watch: Callable[[int, int | None], None]) -> None:
    """Download timm's weights into the cache where timm finds them."""
    import timm

    config = timm.get_pretrained_cfg(name)
    assert config is not None, "it has weights"
    if config.hf_hub_id:
        fetch(config.hf_hub_id, file=config.hf_hub_filename, watch=watch)
    else:
        cached_file(config.url, watch)
