"""This machine, side by side with torchvision: the same work done by both, in alternation.

Functions here prepare one :class:`Work` each. Times are medians over rounds. Ratios are medians of the rounds' ratios,
because other load on the machine slows both sides of a round alike.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retinanet.checkpoints.foreign import torchvision as peer
from retinanet.common.precision import Precision, choose, requested
from retinanet.config.model_settings import AnchorSettings, PostprocessingSettings
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.inference.detector import Detector
from retinanet.inference.postprocessing import postprocess
from retinanet.losses import Criterion, sigmoid_focal_loss
from retinanet.model import RetinaNet
from retinanet.ops import iou_assigner
from retinanet.ops.anchors import grid_shapes, make_anchors
from retinanet.ops.network_outputs import Outputs

CLASSES = 80


@contextmanager
def frozen_heap() -> Iterator[None]:
    """A context in which garbage collection skips the objects that exist already, and so takes no time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Work:
    """One task, as either side does it."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    keep: Any = None
    """An object that must live as long as both, such as a temporary folder."""

    def compare(self, rounds: int = 5) -> Comparison:
        """Run both once without measuring, then in turn; each result is dropped before the other side begins."""
        for side in (self.ours, self.theirs):
            side()
        times: tuple[list[float], list[float]] = ([], [])
        with frozen_heap():
            for _ in range(rounds):
                for side, seconds in zip((self.ours, self.theirs), times):
                    gc.collect()
                    begin = time.perf_counter()
                    side()
                    seconds.append(time.perf_counter() - begin)
        return Comparison(self.name, tuple(times[0]), tuple(times[1]))


@dataclass(frozen=True)
class Comparison:
    """The times of both sides."""

    name: str
    ours: tuple[float, ...]
    """Seconds of each round."""
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """torchvision's time over ours, round by round: above 1 ours is faster."""
        return sorted(t / o for t, o in zip(self.theirs, self.ours))

    def row(self) -> dict[str, Any]:
        ratios = self.ratios
        return {
            "name": self.name,
            "ours_seconds": statistics.median(self.ours),
            "torchvision_seconds": statistics.median(self.theirs),
            "ratio": statistics.median(ratios),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
            "rounds": len(ratios),
        }


def torchvision_model(size: int = 800, longer: int = 1333, classes: int = CLASSES) -> nn.Module:
    """``retinanet_resnet50_fpn`` with random weights, of which some thousand scores of an image pass 0.05."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    torch.manual_seed(0)
    model: Any = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=classes, min_size=size, max_size=longer
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:  # Without statistics of its own, the network would lose the image before the heads.
        norm.momentum = 1.0
    with torch.no_grad():
        model.backbone.train()(torch.randn(1, 3, 256, 256))
        nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.02)
        nn.init.normal_(model.head.classification_head.cls_logits.bias, mean=-6.5, std=1.0)
        nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.02)
    _freeze_norms(model)
    return model.eval()


def _freeze_norms(module: nn.Module) -> None:
    """Batch norm with constants, as torchvision builds its models whenever they come with pretrained weights."""
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_norms(child)


def same_model(model: nn.Module, size: int = 800, longer: int = 1333, classes: int = CLASSES) -> RetinaNet:
    """Our network with the weights of :func:`torchvision_model`."""
    result = RetinaNet(peer.settings("v1", size, longer), classes)
    result.load_state_dict(peer.convert_state(model.state_dict()))
    return result


def inference(image: Path | None = None, size: int = 800, precision: str = "auto", fair: bool = False) -> Work:
    """From an image's file to its boxes.

    Args:
        image: a JPEG file; by default one of 640 x 480 pixels that is made for it.
        precision: ours, as :func:`retinanet.load` takes it. torchvision computes in fp32, as its users run it.
        fair: torchvision under bf16 autocast with channels-last memory instead.
    """
    from torchvision.io import ImageReadMode, decode_image

    model: Any = torchvision_model(size)
    detector = Detector(same_model(model, size), [str(i) for i in range(CLASSES)], choose(precision, "cpu"))
    detector.fuse(fast=requested(precision) == "auto")
    if fair:
        model = model.to(memory_format=torch.channels_last)
    folder = tempfile.TemporaryDirectory()  # removed with the last reference to it
    path = image or make_image(Path(folder.name) / "image.jpg")

    @torch.inference_mode()
    def theirs() -> Any:
        pixels = decode_image(str(path), ImageReadMode.RGB) / 255
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fair):
            return model([pixels])

    name = f"an image, file to boxes, {size} px, {precision} ({detector.precision})"
    return Work(name + (" against bf16 channels-last" if fair else ""), lambda: detector.predict(path), theirs, folder)


def make_image(path: Path, width: int = 640, height: int = 480) -> Path:
    """Write a JPEG with edges and textures, about as large as a photograph's."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, height // 40, width // 40), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 1)
    noise = torch.rand((3, height, width), generator=generator) * 0.1
    pixels = ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path, quality=90)
    return path


def fake_outputs(
    batch: int, height: int, width: int, classes: int, settings: AnchorSettings
) -> tuple[Outputs, tuple[Tensor, ...]]:
    """Logits of which one in ten thousand scores above 0.05, as those of a trained network do; and their anchors."""
    anchors = make_anchors(settings, height, width, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn((batch, len(a), classes), generator=generator) * 1.2 - 7.5 for a in anchors]
    deltas = [torch.randn((batch, len(a), 4), generator=generator) * 0.3 for a in anchors]
    return Outputs(logits, deltas), anchors


def post_processing(height: int = 800, width: int = 1216, classes: int = CLASSES, batch: int = 1) -> Work:
    """From logits and deltas to boxes."""
    from torchvision.models.detection import RetinaNet as Peer
    from torchvision.models.detection._utils import BoxCoder

    outputs, anchors = fake_outputs(batch, height, width, classes, peer.settings("v1").anchors)
    model: Any = Peer.__new__(Peer)  # its post-processing needs its settings, not its network
    nn.Module.__init__(model)
    model.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    model.score_thresh, model.nms_thresh, model.topk_candidates, model.detections_per_img = 0.05, 0.5, 1000, 300
    sizes, rules = torch.tensor([[height, width]] * batch), PostprocessingSettings(max_detections=300)
    theirs_outputs = {"cls_logits": outputs.logits, "bbox_regression": outputs.deltas}

    @torch.inference_mode()
    def theirs() -> Any:
        return model.postprocess_detections(theirs_outputs, [list(anchors)] * batch, [(height, width)] * batch)

    @torch.inference_mode()
    def ours() -> Any:
        return postprocess(outputs, anchors, sizes, rules)

    name = f"post-processing, {height} x {width}, {classes} classes, batch {batch}"
    return Work(name, ours, theirs)


def count_anchors(height: int, width: int) -> int:
    """Anchors of an image, nine at each position of the five levels."""
    return 9 * sum(h * w for h, w in grid_shapes(height, width))


def loss_inputs(anchors: int, classes: int, positives: int = 100) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn((anchors, classes), generator=generator) - 5).requires_grad_(True)
    labels = torch.full((anchors,), iou_assigner.BACKGROUND)
    order = torch.randperm(anchors, generator=generator)
    labels[order[:positives]] = torch.randint(0, classes, (positives,), generator=generator)
    labels[order[positives : 2 * positives]] = iou_assigner.IGNORED
    return logits, labels


def torchvision_focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """As torchvision's own head calls it: one-hot targets for all anchors that are not ignored."""
    from torchvision.ops import sigmoid_focal_loss as focal

    targets = torch.zeros_like(logits)
    positive = labels >= 0
    targets[positive, labels[positive]] = 1.0
    valid = labels != iou_assigner.IGNORED
    result: Tensor = focal(logits[valid], targets[valid], reduction="sum")
    return result


def focal_loss(anchors: int = 182_403, classes: int = CLASSES) -> Work:
    """Focal loss, forward and backward, fp32."""
    logits, labels = loss_inputs(anchors, classes)

    def ours() -> Tensor | None:
        logits.grad = None
        sigmoid_focal_loss(logits, labels).backward()
        return logits.grad

    def theirs() -> Tensor | None:
        logits.grad = None
        torchvision_focal_loss(logits, labels).backward()
        return logits.grad

    return Work(f"focal loss, forward and backward, {anchors} x {classes}", ours, theirs)


def fake_truth(count: int, height: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (count, 4), log-uniform in size, and labels."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.exp(torch.rand((count, 2), generator=generator) * 3.2 + 2.5)  # 12 to 300 pixels
    sides = sides.minimum(torch.tensor([width, height]) * 0.9)
    corner = torch.rand((count, 2), generator=generator) * (torch.tensor([width, height]) - sides)
    return torch.cat((corner, corner + sides), dim=1), torch.randint(0, classes, (count,), generator=generator)


def box_matching(height: int = 800, width: int = 1216, boxes: int = 20, batch: int = 8) -> Work:
    """Anchors to training targets, with the rules that torchvision trains by."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    anchors = torch.cat(make_anchors(peer.settings("v1").anchors, height, width, torch.device("cpu")))
    truth = [fake_truth(boxes, height, width, CLASSES, seed) for seed in range(batch)]
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    rules = MatchingSettings(low_quality=True)

    name = f"matching, {len(anchors)} anchors, {boxes} boxes, batch {batch}"
    return Work(
        name,
        lambda: iou_assigner.match(anchors, [b for b, _ in truth], [n for _, n in truth], rules),
        lambda: [matcher(box_iou(b, anchors)) for b, _ in truth],
    )


def training_step(
    size: int = 512,
    batch: int = 4,
    boxes: int = 8,
    classes: int = CLASSES,
    precision: Precision = "fp32",
    theirs_precision: Precision = "fp32",
) -> Work:
    """Forward, loss, backward, and an SGD step of R50 on square images, from uint8 images in memory.

    The same weights are trained on both sides: all but the stem and the first stage, with frozen batch norm.
    """
    from lightning.fabric import Fabric

    from retinanet.data.loader import Batch
    from retinanet.training.step import Learner, Mixed, backward

    model: Any = torchvision_model(size, size, classes)
    our_model = same_model(model, size, size, classes)
    frozen = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
    for network in (model, our_model):
        network.train()
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
            elif name.startswith(frozen):
                module.requires_grad_(False)
    optimizers = [
        torch.optim.SGD((p for p in m.parameters() if p.requires_grad), 1e-5, 0.9) for m in (our_model, model)
    ]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    truth = [fake_truth(boxes, size, size, classes, seed) for seed in range(batch)]

    fabric = Fabric(accelerator="cpu", devices=1, plugins=[Mixed("bf16-mixed", "cpu")] if precision == "bf16" else [])
    criterion = Criterion(LossSettings(box="l1"), MatchingSettings(low_quality=True))
    learner, optimizer = fabric.setup(Learner(our_model, criterion), optimizers[0])
    sizes = torch.tensor([[size, size]] * batch)
    part = Batch(images, sizes, [b for b, _ in truth], [n for _, n in truth], list(range(batch)), [0] * batch)

    def ours() -> Tensor:
        optimizer.zero_grad()
        losses = backward(fabric, learner, [part])
        optimizer.step()
        return losses

    def theirs() -> Tensor:
        targets = [{"boxes": b, "labels": n} for b, n in truth]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=theirs_precision == "bf16"):
            losses = model([image / 255 for image in images], targets)
        optimizers[1].zero_grad()
        sum(losses.values()).backward()
        optimizers[1].step()
        return torch.stack([losses["classification"], losses["bbox_regression"]]).detach()

    name = f"training step, R50, {size} px, batch {batch}, {precision} against {theirs_precision}"
    return Work(name, ours, theirs)


def machine() -> str:
    """The CPU, its threads, and the versions that are compared."""
    import torchvision

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    precision = choose("auto", "cpu")
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{name}, {torch.get_num_threads()} threads, {precision}; {versions}"
