"""A detector: preprocessing, network and post-processing together, ready to use on pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from retinanet.config import PostprocessingSettings
from retinanet.detections import Detections
from retinanet.errors import RequestError, first_line
from retinanet.postprocess import postprocess
from retinanet.precision import DTYPES, Precision, choose
from retinanet.preprocess import normalize, pad_batch, padded_size, resize, resized_size

if TYPE_CHECKING:
    from retinanet.model.retinanet import Outputs, RetinaNet


class Detector:
    """Finds objects in pictures; made by :func:`retinanet.load` or from a trained network.

    Args:
        model: the network; it is put into evaluation mode.
        class_names: one for each label.
        precision: in which the network computes. Boxes and scores are float32 always.
        threshold: the score above which detections had the best F1 when the model was measured; None if unknown.
            :meth:`predict` gives lower scores too, as measuring AP needs them: ``found.above(detector.threshold)``.
    """

    def __init__(
        self,
        model: RetinaNet,
        class_names: Sequence[str],
        precision: Precision = "fp32",
        threshold: float | None = None,
    ) -> None:
        if len(class_names) != model.num_classes:
            raise RequestError(f"{len(class_names)} class names for a model of {model.num_classes} classes")
        self.model = model.eval()
        self.settings = model.settings
        self.class_names = tuple(class_names)
        self.precision = precision
        self.threshold = threshold
        self._fused: Callable[[Tensor], Outputs] | None = None
        self._fused_for = self.device

    def fuse(self, fast: bool = False) -> None:
        """Compute in a faster way from now on: on processors with a fused copy of the network, on GPUs by CUDA graphs.

        The copy has weights of its own: call this again after changing those of ``model``, or moving it.

        Args:
            fast: see :func:`retinanet.model.fused.fuse`.
        """
        from retinanet.model import fused, graphs

        self._fused = None
        dtype = DTYPES[self.precision]
        if self.device.type == "cuda":
            self._fused, self._fused_for = graphs.Graphs(self._network), self.device
        if self.device.type != "cpu" or not fused.available(dtype):
            return
        try:
            network = fused.fuse(self.model, dtype, fast)
            height, width = padded_size([(1, 1)], self.settings.preprocessing)
            network(torch.zeros((1, 3, height, width), dtype=dtype))
        except Exception as error:  # some backbone does what cannot be traced: it works as it is, only slower
            reason = first_line(error)
            warnings.warn(f"the network stays as it is, which is slower: {reason}", stacklevel=2)
        else:
            self._fused, self._fused_for = network, self.device

    def __getstate__(self) -> dict[str, Any]:
        # Neither oneDNN's weights nor CUDA graphs can be copied or sent to another process.
        return self.__dict__ | {"_fused": None}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @overload
    def predict(
        self,
        pictures: list[Any] | tuple[Any, ...],
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
    ) -> list[Detections]: ...

    @overload
    def predict(
        self,
        pictures: Any,
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
    ) -> Detections: ...

    def predict(
        self,
        pictures: Any,
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
    ) -> Detections | list[Detections]:
        """Detections of one picture, or a list of them for a list of pictures.

        Args:
            pictures: a path, a PIL image, an RGB array (H, W, 3) uint8, a tensor (3, H, W) uint8, or a list of these.
            threshold: scores at or below it are dropped; the model's own setting by default.
            max_detections: the most per picture.
            size: resize pictures to this instead of the model's size, for this call.
            batch_size: how many pictures of one padded size go through the network together.

        Raises:
            RequestError: where a picture cannot be read or is of a form not listed above.
        """
        from retinanet.data.pictures import to_tensor

        if not isinstance(pictures, list | tuple):
            return self.predict([pictures], threshold=threshold, max_detections=max_detections, size=size)[0]
        if size is not None and self.settings.preprocessing.resize == "none":
            raise RequestError("this model takes pictures as large as they are: a size has no effect; leave it out")
        changed = self._postprocessing(threshold, max_detections)
        results: list[Detections | None] = [None] * len(pictures)
        # Batches hold pictures of one padded size, so that what is found in a picture does not depend on its company.
        waiting: dict[tuple[int, int], list[tuple[int, Tensor, tuple[int, int]]]] = {}

        def run(group: list[tuple[int, Tensor, tuple[int, int]]], padded: tuple[int, int]) -> None:
            sizes = torch.tensor([image.shape[1:] for _, image, _ in group])
            originals = torch.tensor([original for _, _, original in group])
            found = self._detect(pad_batch([image for _, image, _ in group], padded), sizes, originals, changed)
            for (index, _, _), detections in zip(group, found, strict=True):
                results[index] = detections

        for index, picture in enumerate(pictures):
            image = to_tensor(picture)
            original = (image.shape[1], image.shape[2])
            image = self.resize(image, size)
            padded = padded_size([(image.shape[1], image.shape[2])], self.settings.preprocessing, size)
            group = waiting.setdefault(padded, [])
            group.append((index, image, original))
            if len(group) == batch_size:
                run(waiting.pop(padded), padded)
        for padded, group in waiting.items():
            run(group, padded)
        return [found for found in results if found is not None]

    def resize(self, image: Tensor, size: int | None = None) -> Tensor:
        """(3, H, W) uint8 -> the network's size, (3, h, w) uint8, or float32 in 0..255.

        Without antialiasing (torchvision's convention) the resized picture is not rounded to whole values: torchvision
        resizes floats.
        """
        pictures = self.settings.preprocessing
        target = resized_size(image.shape[1], image.shape[2], pictures, size)
        return resize(image, target, pictures.antialias, quantize=pictures.antialias)

    def detect(
        self, images: Tensor, sizes: Tensor, originals: Tensor, *, threshold: float | None = None
    ) -> list[Detections]:
        """Detections of one batch that is resized and padded already.

        Args:
            images: (B, 3, H, W) uint8 (or float in 0..255), H and W multiples of 32.
            sizes: (B, 2) int64, height and width of each picture within its padding.
            originals: (B, 2) int64, height and width before resizing: boxes are given in those pixels.
            threshold: the model's own setting by default.
        """
        return self._detect(images, sizes, originals, self._postprocessing(threshold, None))

    @torch.inference_mode()
    def outputs(self, images: Tensor, sizes: Tensor) -> Outputs:
        """Logits and deltas of one batch, on the detector's device; arguments as :meth:`detect` takes them.

        On a GPU the next batch of the same shape may overwrite them.
        """
        device = self.device
        pictures = self.settings.preprocessing
        assert pictures.mean is not None, "the model fills it in"
        assert pictures.std is not None, "the model fills it in"
        images = normalize(images.to(device), sizes, pictures.mean, pictures.std)
        if self._fused is not None and device == self._fused_for:
            return self._fused(images.to(DTYPES[self.precision]) if device.type == "cpu" else images)
        return self._network(images)

    def _network(self, images: Tensor) -> Outputs:
        # A cache of converted weights must not end up outside of a CUDA graph that reads it.
        kind, dtype = self.device.type, DTYPES[self.precision]
        with torch.autocast(kind, dtype=dtype, enabled=self.precision != "fp32", cache_enabled=kind != "cuda"):
            outputs: Outputs = self.model(images)
        return outputs

    @torch.inference_mode()
    def _detect(
        self, images: Tensor, sizes: Tensor, originals: Tensor, settings: PostprocessingSettings
    ) -> list[Detections]:
        outputs = self.outputs(images, sizes)
        anchors = self.model.anchors(images.shape[2], images.shape[3], self.device)
        results = []
        for (boxes, scores, labels), size, original in zip(
            postprocess(outputs, anchors, sizes, settings), sizes.tolist(), originals.tolist(), strict=True
        ):
            # In float64: a box that reaches the edge has to end at the edge, not a rounding error beyond.
            scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float64)
            results.append(Detections((boxes.cpu() * scale).float(), scores.cpu(), labels.cpu(), self.class_names))
        return results

    def _postprocessing(self, threshold: float | None, max_detections: int | None) -> PostprocessingSettings:
        settings = self.settings.postprocessing
        if threshold is not None:
            settings = replace(settings, threshold=threshold)
        if max_detections is not None:
            settings = replace(settings, max_detections=max_detections)
        return settings

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write the detector as one safetensors file that :func:`retinanet.load` takes."""
        from retinanet.checkpoints import native

        facts = {"threshold": self.threshold, **extra}
        native.save(path, self.model.state_dict(), self.settings, self.class_names, facts)


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
) -> Detector:
    """A detector from a run folder (its best checkpoint) or a checkpoint file.

    It computes in the faster way that there is for the device (:meth:`Detector.fuse`).

    Args:
        source: the folder or file.
        device: "cpu", "cuda", ...; by default a GPU where there is one.
        precision: "auto" is the fastest that leaves the boxes as they are for the eye: bfloat16 where the device
            multiplies in it, else float32 with fast algorithms. "fp32" is plain float32.
    """
    from retinanet.checkpoints import find, native
    from retinanet.model import RetinaNet

    path = find(source)
    checkpoint = native.load(path)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = RetinaNet(checkpoint.settings, len(checkpoint.class_names), load_weights=False)
    try:
        model.load_state_dict(checkpoint.state)
    except RuntimeError as error:
        raise RequestError(
            f"the weights in {path} do not fit its settings: {str(error).splitlines()[-1].strip()}"
        ) from error
    model.to(device)
    threshold = checkpoint.extra.get("threshold")
    known = isinstance(threshold, float) and 0 <= threshold < 1
    detector = Detector(model, checkpoint.class_names, choose(precision, device), threshold if known else None)
    detector.fuse(fast=precision == "auto")
    return detector
