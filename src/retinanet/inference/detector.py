"""A detector: preprocessing, network and post-processing together, ready to use on images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from retinanet import checkpoints
from retinanet.checkpoints import Checkpoint, hub, native
from retinanet.checkpoints.architecture import require_fit
from retinanet.common.arguments import Nms, PredictOptions, class_names_of
from retinanet.common.devices import choose_device
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.common.precision import DTYPES, Precision, Request, for_model, require_known
from retinanet.common.printable import printable
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.data.image_io import to_tensor
from retinanet.inference import cpu_fusion, cuda_graphs
from retinanet.inference.detections import Detections
from retinanet.inference.postprocessing import postprocess
from retinanet.model.retinanet import RetinaNet
from retinanet.ops import boxes as geometry
from retinanet.ops.image_batch import ImageBatch, PreparedImage, batches_by_size, prepare_image
from retinanet.ops.network_outputs import Outputs
from retinanet.ops.resize import padded_size

LARGEST_TRIAL = 2048 * 2048
"""The most pixels that a fused network is tried on: settings of a file may ask for far larger images."""
DEFAULTS = PredictOptions()


class Detector:
    """Finds objects in images; made by :func:`retinanet.load` or from a trained network.

    Args:
        model: the network; it is put into evaluation mode.
        class_names: one for each label, all different.
        precision: in which the network computes. Boxes and scores are float32 always.
        computes: the precision in words, with the reason for it; "fp32" and the like by default.
        about: what else is known of the weights, such as "origin", "step" and "metrics" (the twelve COCO numbers), as
            plain values; kept when the detector is saved.

    Attributes:
        threshold: the score above which detections had the best F1 when the model was evaluated, from ``about``; None
            if unknown. :meth:`predict` gives lower scores too, as AP needs them: ``found.above(detector.threshold)``.
    """

    def __init__(
        self,
        model: RetinaNet,
        class_names: Sequence[str],
        precision: Precision = "fp32",
        about: Mapping[str, Any] | None = None,
        computes: str | None = None,
    ) -> None:
        if not isinstance(model, torch.nn.Module) or not hasattr(model, "num_classes"):
            raise RequestError(f"model must be a RetinaNet, not {shown(model)}")
        names = class_names_of(class_names, model.num_classes)
        require_known(precision, DTYPES)
        self.model = model.eval()
        self.settings = model.settings
        self.class_names = names
        self.precision = precision
        self.computes = computes or precision
        self.about = dict(about or {})
        self._fused: Callable[[Tensor], Outputs] | None = None
        self._fused_for = self.device

    def __repr__(self) -> str:
        about = [f"{len(self.class_names)} classes", self.settings.backbone.name]
        if self.assumed:
            about.append(f"{len(self.assumed)} assumptions")
        return f"<Detector: {', '.join(about)}, on {self.device}, computes in {self.computes}>"

    def fuse(self, fast: bool = False) -> None:
        """Compute faster from now on: on CPUs with a fused copy of the network, on GPUs by CUDA graphs.

        The copy has weights of its own: call this again after changing those of ``model``, or moving it.

        Args:
            fast: see :func:`retinanet.inference.cpu_fusion.fuse`.
        """
        self._fused = None
        dtype = DTYPES[self.precision]
        if self.device.type == "cuda":
            self._fused, self._fused_for = cuda_graphs.Graphs(self._network), self.device
        if self.device.type != "cpu" or not cpu_fusion.available(dtype):
            return
        try:
            network = cpu_fusion.fuse(self.model, dtype, fast)
            height, width = padded_size([(1, 1)], self.settings.preprocessing)
            if height * width > LARGEST_TRIAL:
                height = width = self.settings.preprocessing.multiple
            network(torch.zeros((1, 3, height, width), dtype=dtype))
        except Exception as error:  # Some backbones cannot be traced. They work as they are, only slower.
            reason = first_line(error)
            warnings.warn(f"the network stays as it is, which is slower: {reason}", stacklevel=2)
        else:
            self._fused, self._fused_for = network, self.device

    def __getstate__(self) -> dict[str, Any]:
        # Neither oneDNN's weights nor CUDA graphs can be copied or sent to another process.
        return self.__dict__ | {"_fused": None}

    @property
    def threshold(self) -> float | None:
        return checkpoints.threshold(self.about)

    @property
    def assumed(self) -> tuple[str, ...]:
        """Sentences on what had to be assumed, where another project's file does not state it."""
        lines = self.about.get("assumed")
        lines = lines if isinstance(lines, list | tuple) else ()
        return tuple(printable(line) for line in lines if isinstance(line, str))

    @property
    def device(self) -> torch.device:
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device  # an exported network has none

    @property
    def preprocessing(self) -> PreprocessingSettings | None:
        """How :meth:`prepare` resizes and pads; None where the network takes images of any size as they are."""
        return self.settings.preprocessing

    @property
    def least_threshold(self) -> float:
        """The lowest threshold that :meth:`predict` takes: above 0 where scores are dropped in an exported file."""
        return 0.0

    def require(self, options: PredictOptions) -> None:
        """
        Raises:
            RequestError: this model cannot predict with these options.
        """
        if options.size is not None and self.settings.preprocessing.resize == "none":
            raise RequestError("this model does not resize images, so a size has no effect: leave it out")

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
        nms: Nms | None = None,
    ) -> list[Detections]: ...

    @overload
    def predict(
        self,
        images: Any,
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
        nms: Nms | None = None,
    ) -> Detections: ...

    def predict(
        self,
        images: Any,
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
        nms: Nms | None = None,
    ) -> Detections | list[Detections]:
        """Detections of one image, or a list of them for a list of images.

        Args:
            images: a path, a PIL image, an RGB array (H, W, 3) or tensor (3, H, W) of uint8, or a list of these.
                Other numbers are scaled to 8 bits, see :func:`retinanet.data.pixel_formats.scaled`.
            threshold: scores at or below it are dropped, in [0, 1); the model's own setting by default.
            max_detections: the most per image, at least 1; the model's own setting by default.
            size: resize images to this many pixels instead of the model's size, for this call.
            batch_size: how many images of one padded size go through the network at once.
            nms: "agnostic" lets boxes of all classes suppress each other, so that an object has one label; "class"
                only boxes of one class; the model's own setting by default.

        Raises:
            RequestError: an image cannot be read or is of a form not listed above, a number is out of range, or the
                model cannot predict with these options (see :meth:`require`).

        Warns:
            UserWarning: once for each kind of data that was scaled, ignored or left out, with the count of images.
        """
        options = PredictOptions(threshold, max_detections, size, batch_size, nms)
        self.require(options)
        single = not isinstance(images, list | tuple)
        sources = [images] if single else images
        notes: list[str] = []
        prepared = ((i, self.prepare(source, options.size, notes)) for i, source in enumerate(sources))
        results: dict[int, Detections] = {}
        for group in batches_by_size(prepared, lambda item: item[1].padded, options.batch_size):
            indices, batch = zip(*group, strict=True)
            results.update(zip(indices, self.detect(ImageBatch.stack(batch), options), strict=True))
        for note, count in Counter(notes).items():
            warnings.warn(f"{count} of {len(sources)} images: {note}", stacklevel=2)
        return results[0] if single else [results[i] for i in range(len(sources))]

    def prepare(self, image: Any, size: int | None = None, notes: list[str] | None = None) -> PreparedImage:
        """Read an image of any kind and resize it for the network: the first step of :meth:`predict`.

        Args:
            image: as :meth:`predict` takes it. size: stands in for the model's size.
            notes: what was scaled, ignored or left out of the image is added to this list.
        """
        return prepare_image(to_tensor(image, notes), self.preprocessing, size)

    @torch.inference_mode()
    def forward(self, batch: ImageBatch) -> Outputs:
        """Normalise a batch and run the network: logits and deltas on the detector's device.

        On a GPU the next batch of the same shape may overwrite them.
        """
        device = self.device
        images = batch.normalized(self.settings.preprocessing, device)
        if self._fused is not None and device == self._fused_for:
            return self._fused(images.to(DTYPES[self.precision]) if device.type == "cpu" else images)
        return self._network(images)

    @torch.inference_mode()
    def decode(self, outputs: Outputs, batch: ImageBatch, options: PredictOptions = DEFAULTS) -> list[Detections]:
        """Detections of each image, in pixels of the image as it was given, from what :meth:`forward` returns."""
        settings = self.settings.postprocessing
        if options.threshold is not None:
            settings = replace(settings, threshold=options.threshold, coarsest_threshold=None)
        if options.max_detections is not None:
            settings = replace(settings, max_detections=options.max_detections)
        if options.nms is not None:
            settings = replace(settings, nms=options.nms)
        anchors = self.model.anchors(batch.images.shape[2], batch.images.shape[3], outputs.logits[0].device)
        found = postprocess(outputs, anchors, batch.originals * batch.scales, settings, batch.scales)
        results = []
        for (boxes, scores, labels), scale, original in zip(found, batch.scales, batch.originals, strict=True):
            boxes = geometry.clip(boxes.cpu() / scale[[1, 0, 1, 0]], *original.unbind())
            results.append(Detections(boxes.float(), scores.cpu(), labels.cpu(), self.class_names))
        return results

    def detect(self, batch: ImageBatch, options: PredictOptions = DEFAULTS) -> list[Detections]:
        """:meth:`forward`, then :meth:`decode`; ``size`` and ``batch_size`` of the options are ignored."""
        return self.decode(self.forward(batch), batch, options)

    def _network(self, images: Tensor) -> Outputs:
        # No cache of converted weights on GPUs: a CUDA graph would read tensors that it does not own.
        kind, dtype = self.device.type, DTYPES[self.precision]
        with torch.autocast(kind, dtype=dtype, enabled=self.precision != "fp32", cache_enabled=kind != "cuda"):
            outputs: Outputs = self.model(images)
        return outputs

    def save(self, path: str | Path, **about: Any) -> None:
        """Write the detector as one safetensors file that :func:`retinanet.load` takes.

        Args:
            about: added to what is known of the weights (``self.about``).
        """
        native.save(path, self.weights(), self.settings, self.class_names, self.about | about)

    def weights(self) -> dict[str, Tensor]:
        """The network's state.

        Raises:
            RequestError: it is an exported network, which has none.
        """
        state: dict[str, Tensor] = self.model.state_dict()
        if not state:
            raise RequestError("an exported model has no weights to save: use the checkpoint it was made from")
        return state

    def checkpoint(self) -> Checkpoint:
        """Everything that :meth:`save` writes and :meth:`from_checkpoint` takes.

        Raises:
            RequestError: it is an exported detector, which has no weights.
        """
        return Checkpoint(self.weights(), self.settings, self.class_names, self.about)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        source: str | Path,
        device: str | torch.device | None = None,
        precision: Request | None = None,
    ) -> Detector:
        """The detector of a checkpoint, in the fastest way that the device offers.

        Args:
            source: where it is from, for messages. device, precision: as :func:`retinanet.load` takes them.

        Raises:
            RequestError: the weights do not fit the settings.
        """
        device = choose_device(device)
        model = build(checkpoint, source).to(device)
        chosen = for_model(precision, device, checkpoints.origin(checkpoint.extra))
        computes = f"{chosen.precision} ({chosen.why})"
        detector = cls(model, checkpoint.class_names, chosen.precision, checkpoint.extra, computes)
        detector.fuse(fast=chosen.fast)
        return detector

    @classmethod
    def from_pretrained(
        cls,
        repo: str,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: Request | None = None,
    ) -> Detector:
        """A detector from the Hugging Face hub; ``retinanet.load("user/name@revision")`` opens exported models too.

        Args:
            repo: "user/name". revision: a branch, tag or commit. device, precision: as :func:`retinanet.load`.

        Raises:
            RequestError: there is no such model, or it is not a known kind of RetinaNet.
            WorkError: the hub cannot be reached, and the model is not in its cache.
        """
        path = hub.fetch(repo, revision)
        return cls.from_checkpoint(checkpoints.load(path), path, device, precision)

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None, **card: Any) -> str:
        """Upload the detector to the Hugging Face hub, with a model card of what is known of it.

        Args:
            repo: "user/name"; created if there is none. private: whether a new one is.
            token: by default that of ``hf auth login`` or HF_TOKEN.
            card: ``license``, ``data`` (the data set's name) and ``metrics`` for the model card.

        Returns:
            The URL of its page.

        Raises:
            RequestError: the name is invalid, or nobody is logged in. WorkError: the hub cannot be reached.
        """
        return hub.push(self.checkpoint(), repo, private=private, token=token, **card)


def build(checkpoint: Checkpoint, source: str | Path) -> RetinaNet:
    """The network of a checkpoint, on the CPU.

    Raises:
        RequestError: the weights do not fit the settings, or are not finite; the message names ``source``.
    """
    require_fit(source, checkpoint.state, {}, checkpoint.settings, len(checkpoint.class_names))
    model = RetinaNet(checkpoint.settings, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict(checkpoint.state)
    return model
