"""A model repository for the Triton inference server, around a complete ONNX file."""

from __future__ import annotations

import shutil
from pathlib import Path

from retinanet.common.atomic_files import beside, what_is_wrong
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.settings import ModelSettings

BATCH = 8
"""Images that Triton puts together at most."""
WAIT = 5000
"""How long an image waits for others, in microseconds."""
CONFIG = """\
# {name}: RetinaNet, images in, boxes out. Made by retinanet export.
# images: RGB, bytes, height and width as they are. Triton batches requests of one image size; others go alone.
# Behind the first counts detections of an image boxes and scores are 0, labels -1.
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
    folder, part = repository / name, beside(repository / name)
    if folder.exists():
        raise RequestError(f"{folder} exists: name another folder for --triton, or remove it first")
    text = CONFIG.format(name=name, batch=BATCH, most=settings.postprocessing.max_detections, wait=WAIT)
    try:
        (part / "1").mkdir(parents=True)
        shutil.copyfile(model, part / "1" / "model.onnx")
        (part / "labels.txt").write_text("".join(f"{one}\n" for one in class_names), encoding="utf-8")
        (part / "config.pbtxt").write_text(text, encoding="utf-8")
        part.rename(folder)
    except OSError as error:
        raise WorkError(f"cannot write {folder}: {what_is_wrong(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
