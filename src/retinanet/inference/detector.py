"""A detector: preprocessing, network and post-processing together, ready to use on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import torch
from PIL.Image import Image as PILImage
from torch import Tensor

from retinanet import checkpoints
from retinanet.checkpoints import Checkpoint, hub, native
from retinanet.checkpoints.built_network import build
from retinanet.common.arguments import Nms, PredictOptions, class_names_of
from retinanet.common.devices import choose_device
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.precision import DTYPES, Precision, Request, for_model, require_known
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.inference.detections import Detections
from retinanet.inference.detector_text import assumptions, model_line
from retinanet.inference.fast_network import FastNetwork
from retinanet.inference.image_inputs import (
    OnError,
    PredictArguments,
    Reader,
    detect_in_batches,
    given_images,
    in_windows,
    load_image,
)
from retinanet.inference.postprocessing import postprocess, with_options
from retinanet.model.retinanet import RetinaNet
from retinanet.ops import boxes as geometry
from retinanet.ops.image_batch import ImageBatch, PreparedImage, prepare_image
from retinanet.ops.network_outputs import Outputs

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
            if unknown.

    Examples:
        >>> import retinanet
        >>> detector = retinanet.load("runs/mine", device="cpu")
        >>> detector.class_names
        ('cat', 'dog')
        >>> detector.predict("image.jpg", threshold=0.01).boxes.shape[1]
        4
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
        require_known(precision, DTYPES)
        self.model = model.eval()
        self.settings = model.settings
        self.class_names = class_names_of(class_names, model.num_classes)
        self.precision = precision
        self.computes = computes or precision
        self.about = dict(about or {})
        self._network = FastNetwork(self.model, precision)
        self._requested: Request | None = precision

    def __repr__(self) -> str:
        described = model_line(self.class_names, self.settings, self.about)
        return f"<Detector: {described}, on {self.device}, computes in {self.computes}>"

    def fuse(self, fast: bool = False) -> None:
        """Compute faster from now on: on CPUs with a fused copy of the network, on GPUs by CUDA graphs.

        The copy has weights of its own: call this again after changing those of ``model``, or moving it. ``fast`` is
        that of :func:`retinanet.inference.cpu_fusion.fuse`.
        """
        self._network.fuse(fast)

    def to(self, device: str | int | torch.device) -> Detector:
        """Move this detector to another device, as fast there as :func:`retinanet.load` makes it, and return it.

        The precision stays the requested one; "auto" is chosen anew.

            detector = retinanet.load("runs/mine").to("cuda:1")

        Raises:
            RequestError: there is no such device here, or it is an exported model, whose device is chosen by ``load``.
        """
        device = choose_device(device)
        if device == self.device:
            return self
        if next(self.model.parameters(), None) is None:
            raise RequestError(
                f'an exported model cannot be moved: load its file again with device="{device}", or use the checkpoint'
            )
        self.model.to(device)
        self._choose(self._requested, device)
        return self

    def _choose(self, requested: Request | None, device: torch.device) -> None:
        """The precision and the way to compute that fit a request on a device."""
        chosen = for_model(requested, device, checkpoints.origin(self.about))
        self._requested, self.precision = requested, chosen.precision
        self.computes = f"{chosen.precision} ({chosen.why})"
        self._network = FastNetwork(self.model, chosen.precision)
        self.fuse(chosen.fast)

    @property
    def threshold(self) -> float | None:
        return checkpoints.threshold(self.about)

    @property
    def default_threshold(self) -> float | None:
        """The threshold of :meth:`predict`: that of the best F1 where it is known; None for the model's own setting.

        Evaluation does not use it: AP needs the detections with low scores too.
        """
        return None if self.threshold is None else max(self.threshold, self.least_threshold)

    @property
    def assumed(self) -> tuple[str, ...]:
        """Sentences on what had to be assumed, where another project's file does not state it."""
        return assumptions(self.about)

    @property
    def device(self) -> torch.device:
        return self._network.device

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

    def __call__(self, images: Any, **options: Any) -> Any:
        """As :meth:`predict`."""
        return self.predict(images, **options)

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...], **options: Unpack[PredictArguments]) -> list[Detections]: ...
    @overload
    def predict(self, images: Iterator[Any], **options: Unpack[PredictArguments]) -> Iterator[Detections]: ...
    @overload
    def predict(
        self, images: PILImage | np.ndarray[Any, Any] | Tensor | bytes, **options: Unpack[PredictArguments]
    ) -> Detections: ...
    @overload
    def predict(self, images: Any, **options: Unpack[PredictArguments]) -> Any: ...  # a path may be a folder

    def predict(
        self,
        images: Any,
        *,
        threshold: float | None = None,
        max_detections: int | None = None,
        size: int | None = None,
        batch_size: int = 8,
        nms: Nms | None = None,
        bgr: bool = False,
        on_error: OnError = "raise",
    ) -> Detections | list[Detections] | Iterator[Detections]:
        """Detect objects in one image, or in many.

        One image gives :class:`Detections`. A folder, a pattern such as "photos/**/*.jpg", or a list gives a list of
        them. A generator is read lazily, ``batch_size`` images at a time.

        Args:
            images: a path, an http or https URL, the bytes of an image file, a PIL image, an RGB array (H, W, 3) or
                tensor (3, H, W) of uint8; a folder (with its subfolders) or a pattern; a list, tuple or other iterable
                of images. Other numbers are scaled to 8 bits, see :func:`retinanet.data.pixel_formats.scaled`.
            threshold: scores at or below it are dropped, in [0, 1). By default it is :attr:`default_threshold`; 0 gives
                everything up to ``max_detections``.
            max_detections: the most per image, at least 1; the model's own setting by default.
            size: resize images to this many pixels instead of the model's size, for this call.
            batch_size: how many images of one padded size go through the network at once.
            nms: "agnostic" lets boxes of all classes suppress each other, so that an object has one label; "class"
                only boxes of one class; the model's own setting by default.
            bgr: arrays have the channels blue, green, red, as OpenCV reads them. Files are not concerned.
            on_error: what to do where one of several images cannot be read: "raise", or "skip" to leave it out.

        Returns:
            Detections for one image; a list of them for a folder, a pattern, a list or a tuple; otherwise an iterator.
            :attr:`Detections.source` is the path, URL or image of each.

        Raises:
            RequestError: an image cannot be read, a number is out of range, or :meth:`require` refuses the options.

        Warns:
            UserWarning: once for each kind of data that was scaled, ignored or left out, and once for skipped images.

        Examples:
            >>> import retinanet
            >>> detector = retinanet.load("runs/mine", device="cpu")
            >>> len(detector.predict("photos"))
            2
            >>> frames = (torch.zeros(3, 48, 64, dtype=torch.uint8) for _ in range(3))
            >>> [len(detections) for detections in detector.predict(frames, threshold=0.99)]
            [0, 0, 0]
        """
        threshold = self.default_threshold if threshold is None else threshold
        options = PredictOptions(threshold, max_detections, size, batch_size, nms)
        self.require(options)
        form, given = given_images(images)
        reader = Reader(form, on_error, bgr)
        if form == "stream":
            detect = partial(self._detect_each, options=options, reader=reader)
            return in_windows(given, options.batch_size, detect, reader.report)
        results = self._detect_each(given, options, reader)
        reader.report()
        return results[0] if form == "one" else results

    def detect_each(self, images: Iterable[Any], options: PredictOptions = DEFAULTS) -> list[Detections]:
        """Detections of each image by the options as they are, without :attr:`default_threshold`.

        Comparisons of models use this, as :meth:`predict` would drop scores below the best F1.

        Args:
            images: each as :meth:`predict` takes one. options: None stands for the model's own setting.
        """
        self.require(options)
        return self._detect_each(images, options, Reader())

    def _detect_each(self, images: Iterable[Any], options: PredictOptions, reader: Reader) -> list[Detections]:
        return detect_in_batches(
            reader.read_all(images),
            lambda pixels: prepare_image(pixels, self.preprocessing, options.size),
            lambda batch: self.detect(ImageBatch.stack(batch), options),
            options.batch_size,
        )

    def evaluate(self, data: Any, **options: Any) -> Any:
        """Evaluate the detector on a data set: :func:`retinanet.evaluate` with the same arguments."""
        import retinanet

        return retinanet.evaluate(self, data, **options)

    def export(self, format: Any = "onnx", output: str | Path | None = None, **options: Any) -> Path:
        """Write the detector for another runtime: :func:`retinanet.export` with the same arguments."""
        import retinanet

        return retinanet.export(self, format, output, **options)

    def prepare(self, image: Any, size: int | None = None, notes: list[str] | None = None) -> PreparedImage:
        """Read an image of any kind and resize it for the network: the first step of :meth:`predict`.

        Args:
            image: as :meth:`predict` takes it. size: stands in for the model's size.
            notes: what was scaled, ignored or left out of the image is added to this list.
        """
        return prepare_image(load_image(image, notes).pixels, self.preprocessing, size)

    @torch.inference_mode()
    def forward(self, batch: ImageBatch) -> Outputs:
        """Normalise a batch and run the network: logits and deltas on the detector's device.

        On a GPU the next batch of the same shape may overwrite them.
        """
        return self._network(batch.normalized(self.settings.preprocessing, self.device))

    @torch.inference_mode()
    def decode(self, outputs: Outputs, batch: ImageBatch, options: PredictOptions = DEFAULTS) -> list[Detections]:
        """Detections of each image, in pixels of the image as it was given, from what :meth:`forward` returns."""
        settings = with_options(self.settings.postprocessing, options)
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

    def save(self, path: str | Path, **about: Any) -> None:
        """Write the detector as one safetensors file that :func:`retinanet.load` takes.

        Args:
            about: added to what is known of the weights (``self.about``).

        Examples:
            >>> import retinanet
            >>> detector = retinanet.load("runs/mine", device="cpu")
            >>> detector.save("copy.safetensors", note="for the shop")
            >>> retinanet.load("copy.safetensors", device="cpu").about["note"]
            'for the shop'
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
        detector = cls(model, checkpoint.class_names, about=checkpoint.extra)
        detector._choose(precision, device)
        return detector

    @classmethod
    def from_pretrained(
        cls,
        repo: str,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: Request | None = None,
    ) -> Detector:
        """A detector from the Hugging Face hub, as ``retinanet.load("user/name@revision")``.

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
