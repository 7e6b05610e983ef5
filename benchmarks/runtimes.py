"""The time of one network, torchvision's ResNet-50 RetinaNet, in every runtime of this package and in torchvision.

    python benchmarks/runtimes.py --images ../shared/data/tiny_coco/train2017
    python benchmarks/runtimes.py --sides auto int8 --size 512 --json runtimes.json

Weights are random, because only time is measured (benchmarks/quantisation.py measures AP). int8 is calibrated on some
of the images. A measurement goes from pixels to boxes, one image at a time. All sides take turns in one process.
Exporting takes some minutes. The machine should be idle.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import retinanet
from retinanet.bench import torchvision_bench
from retinanet.data.dataset import evenly
from retinanet.data.formats.listing import image_files
from retinanet.data.image_io import read
from retinanet.exporting.onnx import onnx_export
from retinanet.exporting.openvino import openvino_export
from retinanet.inference.detector import Detector

SIDES = ("torchvision", "fp32", "auto", "onnx", "openvino", "int8")
IMAGES = 4
CALIBRATED = 20

Side = Callable[[Tensor], Any]


def sides(names: list[str], images: list[Path], size: int, folder: Path) -> dict[str, Side]:
    """A function of an image (3, H, W) uint8 for each of the names."""
    torch.manual_seed(0)
    theirs: Any = torchvision_bench.torchvision_model(size)
    detector = Detector(torchvision_bench.same_model(theirs, size), [str(i) for i in range(torchvision_bench.CLASSES)])
    detector.save(folder / "m.safetensors")

    @torch.inference_mode()
    def torchvision(image: Tensor) -> Any:
        return theirs([image / 255])

    made: dict[str, Side] = {}
    for name in names:
        begin = time.perf_counter()
        path = folder / name
        if name == "torchvision":
            made[name] = torchvision
            continue
        if name in ("fp32", "auto"):
            made[name] = retinanet.load(folder / "m.safetensors", "cpu", name).predict  # type: ignore[arg-type]
            continue
        if name == "onnx":
            path = folder / "m.onnx"
            onnx_export.write(detector, path)
        elif name == "openvino":
            openvino_export.write(detector, path, "fp32")
        else:
            (folder / "calibrate").mkdir()
            for image in evenly(images, CALIBRATED):
                (folder / "calibrate" / image.name).symlink_to(image.resolve())
            openvino_export.write(detector, path, "int8", folder / "calibrate")
        print(f"exported {name} in {time.perf_counter() - begin:.0f} s", flush=True)
        made[name] = retinanet.load(path).predict
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = list(image_files(options.images))
    images = [read(path) for path in evenly(files, IMAGES)]
    with tempfile.TemporaryDirectory() as folder:
        compared = sides(options.sides, files, options.size, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in compared}
        with torchvision_bench.frozen_heap():
            for number in range(options.rounds + 1):
                for image in images:
                    for name, side in compared.items():
                        gc.collect()
                        begin = time.perf_counter()
                        side(image)
                        if number:  # the first round warms up
                            seconds[name].append(time.perf_counter() - begin)
    base = next(iter(compared))
    sizes = ", ".join(f"{p.shape[2]} x {p.shape[1]}" for p in images)
    print(
        f"\n{torchvision_bench.machine()}; {options.rounds} rounds of {len(images)} images ({sizes}) "
        f"at {options.size} px"
    )
    print(f"{'':12} {'an image':>10}  {'range':18} times {base} (range)")
    rows = []
    for name, taken in seconds.items():
        ratios = sorted(b / t for b, t in zip(seconds[base], taken, strict=True))
        row = {"side": name, "seconds": statistics.median(taken), "low": min(taken), "high": max(taken)}
        rows.append(row | {"ratio": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1]})
        spread = f"{row['low']:.2f} to {row['high']:.2f} s"
        print(
            f"{name:12} {row['seconds']:8.2f} s  {spread:18} {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    if options.json:
        options.json.write_text(
            json.dumps({"machine": torchvision_bench.machine(), "size": options.size, "rows": rows}) + "\n"
        )


if __name__ == "__main__":
    main()
