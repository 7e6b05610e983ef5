"""From scratch on BCCD: this project's RetinaNet beside torchvision's, same backbone, image size, batch and minutes.

    python benchmarks/bccd_scratch.py --data ../shared/data/bccd --minutes 15

The runs follow each other in new processes; the machine should be idle. All train on trainval and are evaluated on test
with the same evaluation at the end (the default command also during training). torchvision's minutes are only training;
ours include evaluation, drawing and saving.

    default           the default command: retinanet train DATA --budget 15m
    ours              recipes/scratch-small.yaml without its evaluations before the end
    torchvision-sgd   torchvision's RetinaNet, SGD at 0.01, divided by ten at 2/3 and 8/9 of the time
    torchvision-adamw torchvision's RetinaNet with group-normalised heads, AdamW at 5e-4, cosine
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

SIZE, LONGER, BATCH = 288, 480, 8
WAYS = ("default", "ours", "torchvision-sgd", "torchvision-adamw")


def ours(data: Path, minutes: float, output: Path, seed: int) -> dict[str, Any]:
    from retinanet.config import recipes
    from retinanet.training.trainer import train

    length = {"budget": f"{minutes}m", "seed": seed, "eval_every": 0}
    changes = {"train": length, "data": {"train": "trainval", "val": "test"}}
    settings = recipes.load("scratch-small", changes)
    images = settings.model.preprocessing
    assert (images.size, images.longer, settings.train.batch_size) == (SIZE, LONGER, BATCH)
    summary = train(data, settings, output / f"ours-{seed}")
    return {"steps": summary["steps"], "seconds": summary["seconds"], **summary["last"]}


def default(data: Path, minutes: float, output: Path, seed: int) -> dict[str, Any]:
    from retinanet.config import recipes
    from retinanet.training import fitted_defaults
    from retinanet.training.trainer import train

    given = {"train": {"budget": f"{minutes}m", "seed": seed}, "data": {"train": "trainval", "val": "test"}}
    settings = recipes.load(recipes.FITTED, given)
    summary = train(data, settings, output / f"default-{seed}", fit=partial(fitted_defaults.fit, given, True))
    return {"steps": summary["steps"], "seconds": summary["seconds"], **summary["last"]}


def torchvision_model(classes: int, norm: bool) -> Any:
    from torch import nn
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.retinanet import RetinaNetHead
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    head = RetinaNetHead(256, 9, classes, norm_layer=partial(nn.GroupNorm, 32)) if norm else None
    return RetinaNet(backbone, classes, min_size=SIZE, max_size=LONGER, head=head)


def torchvision(data: Path, minutes: float, adamw: bool, seed: int) -> dict[str, Any]:
    import torch

    from retinanet.common.precision import choose
    from retinanet.data import open_data
    from retinanet.evaluation import coco_metrics
    from retinanet.inference.detections import Detections

    torch.manual_seed(seed)
    bf16 = choose("auto", "cpu") == "bf16"  # as in ours, if the CPU multiplies in it
    train, test = open_data(data, "trainval"), open_data(data, "test")
    model = torchvision_model(len(train.class_names), norm=adamw)
    if adamw:
        full, optimizer = 5e-4, torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.05)
    else:
        full, optimizer = 0.01, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    length, began, step = minutes * 60, time.monotonic(), 0
    order: list[int] = []
    while (elapsed := time.monotonic() - began) < length:
        images, targets = [], []
        for _ in range(BATCH):
            order = order or torch.randperm(len(train)).tolist()
            index = order.pop()
            image, boxes = train.read(index).float() / 255, torch.from_numpy(train.boxes(index).copy())
            if torch.rand(()) < 0.5:
                image, boxes = image.flip(2), boxes.clone()
                boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
            images.append(image)
            targets.append({"boxes": boxes, "labels": torch.from_numpy(train.labels(index))})
        done = elapsed / length
        decay = 0.5 * (1 + math.cos(math.pi * done)) if adamw else 0.1 ** sum(done >= m for m in (2 / 3, 8 / 9))
        for group in optimizer.param_groups:
            group["lr"] = full * decay * min(1.0, (step + 1) / 50)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            losses = model(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            print(f"step {step} {elapsed:.0f} s loss {loss.item():.3f}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    model.eval()
    detections = {}
    for index in range(len(test)):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            (result,) = model([test.read(index).float() / 255])
        by_score = result["scores"].float().argsort(descending=True, stable=True)
        kept = {key: value[by_score] for key, value in result.items()}
        detections[index] = Detections(kept["boxes"].float(), kept["scores"].float(), kept["labels"], test.class_names)
    return {"steps": step, "seconds": seconds, **coco_metrics.evaluate(test, detections).stats}


def main() -> None:
    from retinanet.bench.torchvision_bench import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/bccd"))
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--output", type=Path, default=Path("runs/bccd-scratch"))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.one:
        if options.one in ("default", "ours"):
            run = default if options.one == "default" else ours
            result = run(options.data, options.minutes, options.output, options.seed)
        else:
            result = torchvision(options.data, options.minutes, options.one.endswith("adamw"), options.seed)
        (options.output / f"{options.one}-{options.seed}.json").write_text(json.dumps(result, indent=1) + "\n")
        return
    print(f"{machine()}, {options.minutes:g} minutes each, seed {options.seed}")
    print(f"{'':18} {'steps':>6} {'seconds':>8} {'AP':>7} {'AP50':>7} {'AP75':>7}")
    for way in options.ways:
        command = [sys.executable, __file__, "--one", way, "--data", str(options.data), "--output", str(options.output)]
        subprocess.run([*command, "--minutes", str(options.minutes), "--seed", str(options.seed)], check=True)
        r = json.loads((options.output / f"{way}-{options.seed}.json").read_text())
        numbers = " ".join(f"{r[name]:7.3f}" for name in ("AP", "AP50", "AP75"))
        print(f"{way:18} {r['steps']:6d} {r['seconds']:8.0f} {numbers}", flush=True)


if __name__ == "__main__":
    main()
