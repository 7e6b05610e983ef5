"""The cost of int8 in AP, and its gain in time and size: one detector as a checkpoint and as OpenVINO folders.

    python benchmarks/quantisation.py --model runs/mine ../shared/data/bccd
    python benchmarks/quantisation.py ../shared/data/bccd --minutes 4

int8 is calibrated on the training split, and all models are evaluated on another split. Without --model a small
detector is trained first. With --ways the last lines are other kinds of int8: every convolution in 8 bits, and the
other preset.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import retinanet
from retinanet.bench import model_comparison
from retinanet.bench.torchvision_bench import machine
from retinanet.cli import main as command
from retinanet.data import open_data
from retinanet.data.dataset import spread
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.runner import detect_all
from retinanet.exporting.openvino import openvino_export, openvino_int8, openvino_runtime
from retinanet.inference.detector import Detector


def load(source: str) -> Detector:
    path = Path(source)
    return openvino_runtime.load(path) if openvino_runtime.recognises(path) else retinanet.load(path, "cpu", "auto")


def quantised(fp32: Path, folder: Path, detector: Detector, data: Path, preset: str, ignored: bool) -> None:
    """Write an int8 model with another preset, or with its last convolutions in int8 too."""
    openvino, nncf = openvino_runtime.runtime("this"), openvino_int8.nncf()
    model = openvino_runtime.core(openvino).read_model(fp32 / openvino_runtime.NETWORK)
    names = [openvino_int8.last_convolution(output) for output in model.outputs] if ignored else []
    images = openvino_int8.calibration_images(data)
    with openvino_int8.silent():
        model = nncf.quantize(
            model,
            nncf.Dataset(images, lambda path: openvino_int8.prepared(path, detector.settings).numpy()),
            preset=nncf.QuantizationPreset[preset],
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=names),
        )
    folder.mkdir()
    openvino.save_model(model, folder / openvino_runtime.NETWORK)
    about = openvino_export.about(detector, "int8")
    (folder / openvino_runtime.ABOUT).write_text(json.dumps(about), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, help="a run folder or checkpoint; by default one is trained")
    parser.add_argument("--minutes", type=float, default=4, help="of training")
    parser.add_argument("--train", default="trainval")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", action="store_true", help="int8 in other ways too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quantisation-"))
    if options.model is None:
        options.model = folder / "run"
        split = ["--train", options.train, "--val", options.split]
        if command(
            ["train", str(options.data), *split, "--budget", f"{options.minutes}m", "--output", str(folder / "run")]
        ):
            raise SystemExit(1)

    plain = retinanet.load(options.model, "cpu", "fp32")
    made = {"checkpoint": options.model}
    for precision in ("fp32", "bf16", "int8"):
        begin = time.perf_counter()
        made[precision] = folder / precision
        openvino_export.write(plain, made[precision], precision, options.data)  # type: ignore[arg-type]
        print(f"exported {precision} in {time.perf_counter() - begin:.0f} s", flush=True)
    if options.ways:
        for preset, ignored in (("MIXED", False), ("PERFORMANCE", True), ("PERFORMANCE", False)):
            name = f"int8 {preset.lower()}{'' if ignored else ', outputs too'}"
            made[name] = folder / name
            quantised(made["fp32"], made[name], plain, options.data, preset, ignored)

    data = open_data(options.data, options.split, class_names=plain.class_names)
    images = [data.read(index) for index in spread(len(data), model_comparison.MOST)]
    timed = model_comparison.compare([str(path) for path in made.values()], images, load, options.rounds)
    print(f"\n{machine()}; {options.data}, split {data.split}, {len(data)} images")
    print(f"{'':28} {'AP':>6} {'AP50':>6} {'size':>8}  an image (range)        same boxes")
    rows: list[dict[str, Any]] = []
    for name, row in zip(made, timed, strict=True):
        stats = coco_metrics.evaluate(data, detect_all(load(row.model), data)).stats
        r = row.row() | {"name": name, "AP": stats["AP"], "AP50": stats["AP50"], "AP75": stats["AP75"]}
        rows.append(r)
        time_taken = f"{1e3 * r['seconds']:.0f} ms ({1e3 * r['seconds_low']:.0f} to {1e3 * r['seconds_high']:.0f})"
        agreement = f"{100 * (r['agreement'] or 0):.1f} %"
        size = f"{r['bytes'] / 1e6:5.1f} MB"
        print(f"{name:28} {r['AP']:6.3f} {r['AP50']:6.3f} {size}  {time_taken:24} {agreement}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
