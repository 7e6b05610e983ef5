"""``data[i]`` and torch's ``DataLoader``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError
from retinanet.data import DetectionData, collate, open_data
from retinanet.model import RetinaNet


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    return open_data(rectangles(tmp_path_factory.mktemp("data") / "squares"), "train")


def same(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    return torch.equal(a[0], b[0]) and all(
        torch.equal(torch.as_tensor(a[1][k]), torch.as_tensor(b[1][k])) for k in a[1]
    )


def test_a_sample(data: DetectionData) -> None:
    image, target = data[2]
    assert torch.equal(image, data.read(2))
    assert image.dtype == torch.uint8
    boxes, labels = data.boxes(2), data.labels(2)
    assert len(boxes) > 0
    np.testing.assert_array_equal(target["boxes"], boxes)
    np.testing.assert_array_equal(target["labels"], labels)
    np.testing.assert_allclose(target["area"], (boxes[:, 2:] - boxes[:, :2]).prod(1))
    assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
    assert (target["area"].dtype, target["iscrowd"].dtype) == (torch.float32, torch.int64)
    assert target["image_id"] == data.image_id(2)
    assert target.keys() == {"boxes", "labels", "image_id", "area", "iscrowd"}
    empty = data[1][1]
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == empty["area"].shape == (0,)
    target["boxes"].zero_()  # a copy
    np.testing.assert_array_equal(data.boxes(2), boxes)


def test_indices(data: DetectionData) -> None:
    assert same(data[-1], data[len(data) - 1])
    assert same(data[np.int64(3)], data[3])
    assert same(data[torch.tensor(3)], data[3])  # type: ignore[index]
    assert len(list(data)) == len(data)
    for outside in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[outside]
    for wrong in (slice(2), [1, 2], 1.5, "1"):
        with pytest.raises(RequestError, match=r"one index.*Subset"):
            data[wrong]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_with_a_loader(data: DetectionData, workers: int, context: Any) -> None:
    loader: Any = DataLoader(
        Subset(data, range(8)),  # type: ignore[arg-type]
        batch_size=3,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context=context,
    )
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [3, 3, 2]
    pairs = list(itertools.chain.from_iterable(zip(*batch) for batch in batches))
    assert all(same(pair, data[i]) for i, pair in enumerate(pairs))


def test_a_training_loop_of_ones_own(data: DetectionData) -> None:
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, len(data.class_names)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader: Any = DataLoader(data, batch_size=5, collate_fn=collate)  # type: ignore[arg-type]
    totals = []
    for images, targets in itertools.chain.from_iterable(itertools.repeat(list(loader), 12)):
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-4:]) < 0.7 * sum(totals[:4])


def test_crowds(tmp_path: Path) -> None:
    """COCO's iscrowd stays beside the label; the network ignores such boxes."""
    import json

    root = rectangles(tmp_path / "squares")
    (path,) = root.rglob("*train*.json") if list(root.rglob("*train*.json")) else root.rglob("train*/*.json")
    content = json.loads(path.read_text())
    for annotation in content["annotations"][:1]:
        annotation["iscrowd"] = 1
    path.write_text(json.dumps(content))
    crowded = open_data(root, "train")
    index = next(i for i in range(len(crowded)) if crowded.crowd(i).any())
    image, target = crowded[index]
    assert target["iscrowd"].tolist() == crowded.crowd(index).astype(int).tolist()
    assert target["labels"].min() >= 0
    model = RetinaNet(tiny().model, 2).eval()
    own = dict(target, labels=torch.from_numpy(crowded.training_labels(index)))
    del own["iscrowd"]
    assert model([image], [target]) == model([image], [own])
