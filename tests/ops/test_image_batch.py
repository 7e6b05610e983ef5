"""Images prepared for the network, and their batches."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops.image_batch import ImageBatch, batches_by_size, prepare_image

SMALL = PreprocessingSettings(size=64, longer=107, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@given(st.lists(st.sampled_from([(32, 32), (32, 64), (64, 32)]), max_size=30), st.integers(1, 5))
def test_batches_hold_one_size_and_are_filled(sizes: list[tuple[int, int]], most: int) -> None:
    batches = list(batches_by_size(enumerate(sizes), lambda item: item[1], most))
    assert sorted(index for batch in batches for index, _ in batch) == list(range(len(sizes)))
    assert all(len({size for _, size in batch}) == 1 for batch in batches)
    assert all(batch == sorted(batch) for batch in batches)
    assert len(batches) == sum(-(-sizes.count(size) // most) for size in set(sizes))


def test_a_batch_is_given_as_soon_as_it_is_full() -> None:
    taken: list[int] = []
    items = (taken.append(i) or i for i in range(6))
    assert next(batches_by_size(items, lambda i: (i % 2, 0), 2)) == [0, 2]
    assert taken == [0, 1, 2]


def test_prepared_images_and_their_batch() -> None:
    first, second = (torch.full((3, *shape), 255, dtype=torch.uint8) for shape in ((50, 90), (48, 80)))
    images = [prepare_image(image, SMALL) for image in (first, second)]
    assert [(image.original, image.resized, image.padded) for image in images] == [
        ((50, 90), (59, 107), (64, 128)),
        ((48, 80), (64, 107), (64, 128)),
    ]
    batch = ImageBatch.stack(images)
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 64, 128), torch.uint8)
    assert batch.sizes.tolist() == [[59, 107], [64, 107]]
    torch.testing.assert_close(batch.scales, batch.sizes / batch.originals.double())
    pixels = batch.normalized(SMALL)
    assert (pixels[0, :, :59, :107] == 1).all()
    assert not pixels[0, :, 59:].any()
    assert not pixels[:, :, :, 107:].any()


def test_without_settings_an_image_stays_as_it_is() -> None:
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    prepared = prepare_image(image, None)
    assert torch.equal(prepared.pixels, image)
    assert prepared.original == prepared.resized == prepared.padded == (5, 7)
    assert prepared.scale == (1.0, 1.0)
