"""ONNX files of ours as detectors, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.config.model_settings import ModelSettings
from retinanet.exporting.exported_network import ExportedNetwork
from retinanet.exporting.onnx import onnx_limits
from retinanet.exporting.onnx.onnx_export import FORMAT, NETWORK_INPUT, output_names
from retinanet.inference.detections import Detections
from retinanet.inference.detector import DEFAULTS, Detector
from retinanet.ops.image_batch import ImageBatch
from retinanet.ops.network_outputs import Outputs
from retinanet.weight_files import metadata

COMPUTES = "fp32 by ONNX Runtime"


def recognises(path: Path) -> bool:
    """Whether a file is ONNX, by its name, since the format has no magic number."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def session(path: Path, device: str | torch.device | None = None, content: bytes | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` with as many threads as PyTorch has (OMP_NUM_THREADS) and without telemetry.

    Args:
        device: "cuda" and the like for ONNX Runtime's CUDA; everything else means the CPU.
        content: bytes to read instead of the file.

    Raises:
        RequestError: ONNX Runtime is missing, cannot read the file, or has no such device.
    """
    try:
        import onnxruntime
    except ImportError:
        raise RequestError(f"{path} needs onnxruntime: pip install 'retinanet[onnx]'") from None

    onnxruntime.disable_telemetry_events()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device is not None and torch.device(device).type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RequestError(
                f"onnxruntime has no CUDA here: leave out --device {device}, or pip install onnxruntime-gpu instead"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": torch.device(device).index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors, which are raised as well
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers)
    except Exception as error:  # of many kinds, none of them documented
        raise RequestError(f"{path} cannot be read as an ONNX model: {first_line(error)}") from error


def load_onnx(path: str | Path, device: str | torch.device | None = None) -> Detector:
    """The detector in a file that ``retinanet export --format onnx`` made.

    Raises:
        RequestError: the file is missing or no such file; ONNX Runtime is missing, or has no such device.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"there is no ONNX file {path}")
    model = onnx_limits.read(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    keys = ("settings", "classes", "extra")
    try:
        parsed = {name: metadata.parse(known[f"retinanet.{name}"]) for name in keys if f"retinanet.{name}" in known}
    except ValueError as error:
        raise RequestError(f"{path} cannot be read: its metadata is damaged ({error})") from error
    settings, names, about = metadata.of_export(path, parsed | {"format": known.get("format")}, FORMAT)
    onnx_limits.require_harmless(model, path)
    del model  # ONNX Runtime reads the weights again.
    opened = session(path, device)
    complete = known.get("retinanet.kind") == "complete"
    wanted = ["boxes", "scores", "labels", "counts"] if complete else output_names(settings)
    found = [output.name for output in opened.get_outputs()]
    if found != wanted or [given.name for given in opened.get_inputs()] != ["images"]:
        raise RequestError(f"{path} is not the model that its metadata describes: export it again")
    if complete:
        return OnnxDetector(opened, settings, names, about, path)

    def run(images: Tensor) -> list[Tensor]:
        return _run(opened, None, np.ascontiguousarray(images.numpy()))

    return Detector(ExportedNetwork(settings, len(names), run), names, about=about, computes=COMPUTES)  # type: ignore[arg-type]


def _run(session: Any, names: list[str] | None, images: np.ndarray[Any, Any]) -> list[Tensor]:
    try:
        return [torch.from_numpy(array) for array in session.run(names, {"images": images})]
    except Exception as error:  # of many kinds, none of them documented
        raise WorkError(f"the ONNX model cannot be run on {list(images.shape)}: {first_line(error)}") from error


def open_inside(path: Path) -> Callable[[Tensor], tuple[Tensor, Outputs, Detections]]:
    """Open a complete file so that its inside can be checked, with all of its thresholds at 0.

    Returns:
        A function of an image (3, H, W) uint8 that returns the network's input (1, 3, H', W'), its outputs, and the
        detections.
    """
    import onnx

    model = onnx.load(path)
    detector = load_onnx(path)
    assert isinstance(detector, OnnxDetector)
    for constant in model.graph.initializer:
        if constant.name.startswith("after/threshold."):
            constant.CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.float32), constant.name))
    names = [NETWORK_INPUT, *output_names(detector.settings)]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    detector.session, levels = session(path, content=model.SerializeToString()), len(detector.settings.anchors.levels)

    def run(image: Tensor) -> tuple[Tensor, Outputs, Detections]:
        network_input, *outputs = detector.run(image[None], names)
        (detections,) = detector.detect(ImageBatch.stack([detector.prepare(image)]))
        return network_input, Outputs(outputs[:levels], outputs[levels:]), detections

    return run


class OnnxDetector(Detector):
    """A complete ONNX file as a detector: it resizes and suppresses by itself, so there is no ``forward`` alone.

    Attributes:
        session: of ONNX Runtime: "images" (B, H, W, 3) uint8 in; "boxes", "scores", "labels" and "counts" out.
    """

    preprocessing = None

    def __init__(
        self, session: Any, settings: ModelSettings, class_names: tuple[str, ...], about: Mapping[str, Any], path: Path
    ) -> None:
        def refuse(images: Tensor) -> list[Tensor]:
            raise RequestError(f"{path} is a complete model: its network cannot run by itself; use the checkpoint")

        self.session = session
        network: Any = ExportedNetwork(settings, len(class_names), refuse)
        super().__init__(network, class_names, about=about, computes=COMPUTES)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if "CUDAExecutionProvider" in self.session.get_providers() else "cpu")

    @property
    def least_threshold(self) -> float:
        settings = self.settings.postprocessing
        return max(settings.threshold, settings.coarsest_threshold or 0)

    def require(self, options: PredictOptions) -> None:
        """What is written into the file can be made stricter, not looser.

        Raises:
            RequestError: there is a size, the threshold is below the file's, ``max_detections`` above, or ``nms``
                another.
        """
        if options.size is not None:
            raise RequestError("this ONNX model resizes images by itself: a size has no effect; leave it out")
        if options.threshold is not None and options.threshold < self.least_threshold:
            raise RequestError(
                f"this ONNX model itself drops scores at or below {self.least_threshold:g}: give a threshold of at "
                f"least that, not {options.threshold:g}, or use the checkpoint"
            )
        own = self.settings.postprocessing.nms
        if options.nms is not None and options.nms != own:
            raise RequestError(
                f'this ONNX model suppresses boxes by itself, with nms "{own}": use the checkpoint, or export it with '
                f"--nms {options.nms}"
            )
        most = self.settings.postprocessing.max_detections
        if options.max_detections is not None and options.max_detections > most:
            raise RequestError(
                f"this ONNX model gives at most {most} detections in an image: set no higher limit, not "
                f"{options.max_detections}, or use the checkpoint"
            )

    def detect(self, batch: ImageBatch, options: PredictOptions = DEFAULTS) -> list[Detections]:
        boxes, scores, labels, counts = self.run(batch.images, ["boxes", "scores", "labels", "counts"])
        real = labels[torch.arange(labels.shape[1]) < counts[:, None]]
        if len(real) and not 0 <= int(real.min()) <= int(real.max()) < len(self.class_names):
            raise WorkError(f"the ONNX model gives labels outside of its {len(self.class_names)} class names")
        results = []
        for i, count in enumerate(counts.tolist()):
            own_boxes, own_scores, own_labels = (tensor[i, :count].clone() for tensor in (boxes, scores, labels))
            detections = Detections(own_boxes, own_scores, own_labels, self.class_names)
            if options.threshold is not None:
                detections = detections.above(options.threshold)
            results.append(detections if options.max_detections is None else detections.first(options.max_detections))
        return results

    def run(self, images: Tensor, names: list[str]) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> the file's tensors of these names."""
        return _run(self.session, names, images.permute(0, 2, 3, 1).contiguous().numpy())
