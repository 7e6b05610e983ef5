"""A model repository for the Triton inference server, around a complete ONNX file."""

from __future__ import annotations

import shutil
from pathlib import Path

from retinanet.common.atomic_files import beside, rename, what_is_wrong
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import ModelSettings

BATCH = 8
"""The most images that Triton puts into a batch."""
WAIT = 5000
"""Microseconds that an image waits for others."""
CONFIG = """\
# {name}: RetinaNet, images in, boxes out. Made by retinanet export.
# images: RGB uint8 of any size. Triton batches requests of one image size; others run alone.
# After the first counts detections of an image, boxes and scores are 0 and labels -1.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
  {{ name: "boxes" data_type: TYPE_FP32 dims: [ {most}, 4 ] }},
  {{ name: "scores" data_type: TYPE_FP32 dims: [ {most} ] }},
  {{ name: "labels" data_type: TYPE_INT64 dims: [ {most} ] label_filename: "labels.txt" }},
  {{ name: "counts" data_type: TYPE_INT64 dims: [ 1 ] reshape: {{ shape: [ ] }} }}
]
dynamic_batching {{ max_queue_delay_microseconds: {wait} }}
"""


def write(model: Path, repository: Path, name: str, settings: ModelSettings, class_names: tuple[str, ...]) -> Path:
    """Put a complete ONNX file into ``repository/name``, ready for ``tritonserver --model-repository repository``.

    Raises:
        RequestError: there is a model of that name already.
        WorkError: the files cannot be written.
    """
    folder, temporary = repository / name, beside(repository / name)
    if folder.exists():
        raise RequestError(f"{folder} exists: name another folder for --triton, or remove it first")
    text = CONFIG.format(name=name, batch=BATCH, most=settings.postprocessing.max_detections, wait=WAIT)
    try:
        (temporary / "1").mkdir(parents=True)
        shutil.copyfile(model, temporary / "1" / "model.onnx")
        (temporary / "labels.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        (temporary / "config.pbtxt").write_text(text, encoding="utf-8")
        rename(temporary, folder)
    except OSError as error:
        raise WorkError(f"cannot write {folder}: {what_is_wrong(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
