"""The stream of training images is one, whoever loads it; evaluation sees each image once, as predict does."""

import itertools
import multiprocessing
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.user_transform import flipped
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.config.settings import AugmentationSettings, DataSettings, Settings, TrainSettings
from retinanet.data import open_data
from retinanet.data.loader import eval_batches, order, train_batches
from retinanet.ops.resize import resize_bilinear, resized_size

AUGMENTATION = AugmentationSettings(crop=0.5, zoom=(0.7, 1.3), colour=0.5)
PREPROCESSING = PreprocessingSettings(size=40, longer=80)
IMAGES = 11


def settings(batch_size=4, accumulate=1, seed=0, augmentation=AUGMENTATION, preprocessing=PREPROCESSING, repeat=0.0):
    return Settings(
        model=ModelSettings(preprocessing=preprocessing),
        data=DataSettings(augmentation=augmentation, repeat_threshold=repeat),
        train=TrainSettings(batch_size=batch_size, accumulate=accumulate, seed=seed),
    )


def make(root):
    """A YOLO data set of 11 images of different shapes, one of them without boxes."""
    rng = np.random.default_rng(0)
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for i in range(IMAGES):
        height, width = 30 + 7 * (i % 3), 40 + 9 * (i % 4)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/train/{i}.png")
        boxes = "" if i == 3 else f"{i % 2} 0.5 0.5 0.4 0.5\n1 0.25 0.3 0.2 0.{1 + i % 3}\n"
        (root / f"labels/train/{i}.txt").write_text(boxes)
    (root / "data.yaml").write_text("train: images/train\nnames: [circle, square]\n")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data(make(tmp_path_factory.mktemp("data")), "train")


def take(count, *args, **kwargs):
    return list(itertools.islice(train_batches(*args, **kwargs), count))


def equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.sizes, b.sizes)
        assert (a.indices, a.draws) == (b.indices, b.draws)
        assert len(a.boxes) == len(b.boxes) == len(a.labels) == len(b.labels) == len(a.indices)
        assert all(torch.equal(x, y) for x, y in zip(a.boxes + a.labels, b.boxes + b.labels))
    return True


def images(parts):
    """(times seen, index) -> its pixels, size, boxes and labels, in the order of the parts."""
    found = {}
    for part in parts:
        for i, key in enumerate(zip(part.draws, part.indices)):
            found[key] = (part.images[i], part.sizes[i], part.boxes[i], part.labels[i])
    return found


def test_a_batch_holds_what_it_says(data):
    (batch,) = take(1, data, settings())[0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape[:2] == (4, 3)
    assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
    assert batch.sizes.dtype == torch.int64
    assert tuple(batch.sizes.amax(0)) <= tuple(batch.images.shape[2:])
    for image, (height, width), boxes, labels in zip(batch.images, batch.sizes.tolist(), batch.boxes, batch.labels):
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
        assert image[:, :height, :width].float().mean() > 50
        assert boxes.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert boxes.shape == (len(labels), 4)


def test_every_epoch_shows_every_image_once_in_a_new_order(data):
    stream = [key for step in take(3 * IMAGES, data, settings(batch_size=3)) for key in images(step)]
    epochs = [stream[i : i + IMAGES] for i in range(0, 9 * IMAGES, IMAGES)]
    for number, epoch in enumerate(epochs):
        assert {key[0] for key in epoch} == {number}
        assert sorted(key[1] for key in epoch) == list(range(IMAGES))
    assert len({tuple(key[1] for key in epoch) for epoch in epochs}) == 9
    portrait = data.portrait()
    assert not np.array_equal(order(1, 0, portrait, 3), order(0, 0, portrait, 3))


@given(
    shapes=st.lists(st.booleans(), min_size=1, max_size=40),
    batch=st.integers(1, 9),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 99),
)
@hypothesis.settings(deadline=None)
def test_batches_of_one_shape(shapes, batch, epoch, seed):
    portrait = np.array(shapes)
    found = order(seed, epoch, portrait, batch)
    assert sorted(found) == list(range(len(shapes)))
    start = -epoch * len(shapes) % batch  # where in this epoch a batch begins
    batches = [portrait[found[i : i + batch]] for i in range(start, len(shapes) - batch + 1, batch)]
    assert sum(len(set(kinds.tolist())) > 1 for kinds in batches) <= 1


def test_the_same_image_is_augmented_differently_in_each_epoch(data):
    seen = images(part for step in take(2 * IMAGES, data, settings(batch_size=1)) for part in step)
    assert sum(not torch.equal(seen[0, i][1], seen[1, i][1]) for i in range(IMAGES)) > IMAGES // 2


def test_images_of_the_rarer_class_come_more_often(data):
    """Circles are in 6 of 11 images, which come sqrt(11 / 6) = 1.35 times an epoch; those with squares alone 1.05
    times, the empty one once: 13.3 draws, rounded to 13."""
    seen = [index for step in take(26, data, settings(batch_size=5, repeat=1.0)) for index in step[0].indices]
    times = np.bincount(seen, minlength=IMAGES)
    assert times.sum() == 130
    scale = (13 - 11) / (6 * (11 / 6) ** 0.5 + 4 * 1.1**0.5 + 1 - 11)
    for index, count in enumerate(times):
        labels = data.labels(index)
        factor = (11 / 6 if 0 in labels else 1.1) ** 0.5 if len(labels) else 1.0
        assert count == pytest.approx(10 * (1 + scale * (factor - 1)), abs=1.1 if len(labels) else 0)


REPEATS = pytest.mark.parametrize("repeat", [0.0, 1.0])


@REPEATS
def test_any_step_can_be_started_at(data, repeat):
    some = settings(repeat=repeat)
    whole = take(9, data, some)
    for start in (1, 2, 3, 8):  # an epoch ends within step 2 or 3
        assert all(equal(a, b) for a, b in zip(whole[start:], take(9 - start, data, some, start_step=start)))
    assert len(take(1, data, some, start_step=10**9)[0]) == 1


@REPEATS
@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_all_processes_are_the_global_batch(data, world, repeat):
    one = settings(batch_size=7, accumulate=2, repeat=repeat)
    whole = take(3, data, one)
    shares = [take(3, data, one, rank=rank, world=world) for rank in range(world)]
    for step in range(3):
        keys = list(images(whole[step]))
        expected = images(whole[step])
        for rank in range(world):
            share = images(shares[rank][step])
            assert list(share) == keys[rank::world]
            assert all(torch.equal(x, y) for key in share for x, y in zip(share[key], expected[key]))


def test_every_part_in_every_process_has_the_size_of_the_global_batch(data):
    for step in range(6):
        (whole,) = take(1, data, settings(batch_size=6), start_step=step)[0]
        for world, accumulate in ((1, 3), (2, 3), (3, 2), (6, 1)):
            for rank in range(world):
                parts = take(1, data, settings(6, accumulate), start_step=step, rank=rank, world=world)[0]
                assert len(parts) == accumulate
                assert {part.images.shape[1:] for part in parts} == {whole.images.shape[1:]}
                assert all(len(part.indices) == 6 // world // accumulate for part in parts)


def test_a_batch_larger_than_the_data_goes_on_into_the_next_epoch(data):
    (batch,) = take(1, data, settings(batch_size=15))[0]
    assert batch.draws == [0] * 11 + [1] * 4


@REPEATS
def test_workers_change_no_byte(data, repeat):
    some = settings(5, accumulate=2, repeat=repeat)
    alone, helped = (take(7, data, some, start_step=2, workers=workers) for workers in (0, 2))
    assert all(equal(a, b) for a, b in zip(alone, helped))


def test_square_images_are_padded_to_one_size(data):
    square = PreprocessingSettings(resize="square", size=64)
    plain = AugmentationSettings()
    shapes = {part.images.shape for step in take(8, data, settings(3, 1, 0, plain, square)) for part in step}
    assert shapes == {(3, 3, 64, 64)}


@pytest.mark.parametrize(("batch_size", "accumulate", "world", "least"), [(3, 1, 4, 4), (4, 3, 2, 6), (7, 2, 4, 8)])
def test_an_empty_share_is_refused_at_once(data, batch_size, accumulate, world, least):
    with pytest.raises(RequestError, match=rf"train.batch_size {batch_size}.*train.accumulate.*at least {least}$"):
        train_batches(data, settings(batch_size, accumulate), world=world)


def test_sizes_without_a_resize_are_refused(data):
    none = PreprocessingSettings(resize="none")
    for changes in ({"sizes": (32,)}, {"zoom": (0.5, 1.0)}):
        with pytest.raises(RequestError, match=r"^data.augmentation.sizes and zoom have no effect while"):
            train_batches(data, settings(augmentation=AugmentationSettings(**changes), preprocessing=none))
    (batch,) = take(1, data, settings(augmentation=AugmentationSettings(), preprocessing=none))[0]
    assert batch.sizes.tolist() == [list(data.size(i)) for i in batch.indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_image_that_breaks_during_training_ends_it_with_one_line(tmp_path, workers):
    data = open_data(make(tmp_path), "train")
    (tmp_path / "images/train/7.png").write_text("no image any more")
    with pytest.raises(WorkError) as error:
        take(4, data, settings(), workers=workers)
    assert str(error.value) == (
        f"cannot read the image {tmp_path}/images/train/7.png: it is not an image that Pillow knows; "
        f"remove or replace it in the data set {tmp_path}"
    )
    with pytest.raises(WorkError, match=r"^cannot read the image"):
        list(eval_batches(data, PREPROCESSING, range(IMAGES), 4, workers))


def test_a_loader_process_that_dies_is_reported(data):
    def die(image, boxes, labels):
        import os

        os._exit(9)

    with pytest.raises(WorkError, match=r"^a process that loads images died \(.*; use fewer with --data.workers, 0 "):
        take(1, data, settings(), workers=1, transform=die)


def whiten(image, boxes, labels):
    """Paints boxes white, drops the last one, and draws from torch's generator."""
    image = image.clone()
    for x1, y1, x2, y2 in boxes.int().tolist():
        image[:, y1:y2, x1:x2] = 255
    image[:, 0, 0] = int(torch.randint(0, 256, ()))
    return image, boxes[:-1], labels[:-1]


def test_a_transform_of_the_user_is_applied_and_repeatable(data):
    plain = settings(augmentation=AugmentationSettings(flip=0.0), preprocessing=PreprocessingSettings(resize="none"))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    given = take(4, data, plain, transform=whiten)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(equal(a, b) for a, b in zip(given, take(4, data, plain, transform=whiten, workers=2)))
    seen = images(part for step in given for part in step)
    for (_, index), (image, _, boxes, labels) in seen.items():
        truth = data.boxes(index)
        assert np.array_equal(boxes.numpy(), truth[:-1])
        assert labels.tolist() == data.labels(index)[:-1].tolist()
        for x1, y1, x2, y2 in truth.astype(int):
            assert (image[:, y1 + 1 : y2, x1 + 1 : x2] == 255).all()
    assert len({int(image[0, 0, 0]) for image, *_ in seen.values()}) > 8  # a new number for each image


@pytest.mark.slow
def test_a_transform_with_torchvision(data):
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    def flip(image, boxes, labels):
        canvas = tuple(image.shape[1:])
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)
        return *v2.RandomHorizontalFlip(1.0)(tv_tensors.Image(image), boxes), labels

    plain = settings(augmentation=AugmentationSettings(flip=0.0), preprocessing=PreprocessingSettings(resize="none"))
    always = replace(plain.data, augmentation=AugmentationSettings(flip=1.0))
    equal(take(1, data, plain, transform=flip)[0], take(1, data, replace(plain, data=always))[0])


def test_a_transform_that_changes_the_size_is_refused(data):
    with pytest.raises(RequestError) as error:
        take(1, data, settings(), transform=lambda image, boxes, labels: (image[:, :9, :9], boxes, labels))
    plain = settings()
    first = order(plain.train.seed, 0, data.portrait(), plain.train.batch_size)[0]
    shape = (3, *data.size(int(first)))
    assert all(fact in str(error.value) for fact in ("the transform", "uint8", "(3, 9, 9)", str(shape)))


def test_an_opened_data_set_can_be_sent_to_a_process_once(data):
    again = pickle.loads(pickle.dumps(data))
    assert len(again) == len(data)
    assert torch.equal(again.read(4), data.read(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_image_once_alone_with_its_own_padding(data, workers):
    chosen = [7, 2, 9, 0, 5, 3, 10]
    found = list(eval_batches(data, PREPROCESSING, chosen, batch_size=3, workers=workers))
    assert sorted(index for batch in found for index in batch.indices) == sorted(chosen)
    assert max(len(batch.indices) for batch in found) > 1
    for batch in found:
        assert len(batch.indices) == len(batch.images) <= 3
        for place, index in enumerate(batch.indices):
            assert tuple(batch.originals[place].tolist()) == data.size(index)
            height, width = resized_size(*data.size(index), PREPROCESSING)
            assert batch.sizes[place].tolist() == [height, width]
            assert torch.equal(
                batch.images[place, :, :height, :width], resize_bilinear(data.read(index), (height, width))
            )
            (alone,) = eval_batches(data, PREPROCESSING, [index])
            assert torch.equal(alone.images[0], batch.images[place])


def test_evaluation_of_a_model_that_does_not_antialias_gets_unrounded_images(data):
    (batch,) = eval_batches(data, replace(PREPROCESSING, interpolation="plain"), [0])
    assert batch.images.dtype == torch.float32


def test_evaluation_of_no_images_gives_no_batches(data):
    assert list(eval_batches(data, PREPROCESSING, [], workers=2)) == []


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
from retinanet.config.settings import Settings, TrainSettings
from retinanet.data import open_data
from retinanet.data.loader import train_batches

batches = train_batches(open_data(sys.argv[1], "train"), Settings(train=TrainSettings(batch_size=2)), workers=2)
next(batches)
print("ready", flush=True)
try:
    while True:
        next(batches), time.sleep(0.05)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_loader_processes_quietly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(make(tmp_path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    import os

    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the parent and its workers
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("stopped\n", "", 0)


@pytest.fixture
def spawn():
    """Processes start as on macOS and Windows: they share nothing with this one."""
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(None, force=True)


@pytest.mark.slow
def test_spawned_workers_load_the_same(data, spawn):
    expected = take(3, data, settings(), transform=flipped)
    for here, there in zip(expected, take(3, data, settings(), workers=2, transform=flipped), strict=True):
        for mine, theirs in zip(here, there, strict=True):
            assert torch.equal(mine.images, theirs.images)
            assert all(map(torch.equal, mine.boxes, theirs.boxes))
            assert mine.indices == theirs.indices
    images = [list(eval_batches(data, PREPROCESSING, range(IMAGES), 4, workers)) for workers in (0, 1)]
    assert all(torch.equal(mine.images, theirs.images) for mine, theirs in zip(*images, strict=True))
