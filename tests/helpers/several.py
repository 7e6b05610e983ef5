"""The command line in several processes, forked from one that has imported what takes seconds to import."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import yaml

from helpers.tiny_run import TINY
from retinanet.config import recipes
from retinanet.config.convert import to_plain

PATIENCE = 180  # seconds; a guard against processes that wait for each other, not a measurement
# So small that a step takes milliseconds.
SMALL = {
    "model": {
        "backbone": {"options": {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}},
        "preprocessing": {"size": 32, "longer": 48},
        "pyramid": {"channels": 8},
        "head": {"width": 8},
    }
}


def context():
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        [
            "retinanet.cli",
            "retinanet.training.trainer",
            "retinanet.training.run_report",
            "timm",
        ]
    )
    return found


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_recipe(path, *changes):
    settings = TINY
    for change in changes:
        settings = recipes.merge(settings, change)
    path.write_text(yaml.safe_dump(to_plain(recipes.load(None, settings))))
    return path


class Ranks:
    """``retinanet`` with these arguments in ``count`` processes, as a cluster manager starts them."""

    def __init__(self, count, folder, arguments, prepare=None):
        folder.mkdir(exist_ok=True)
        self.outputs = [folder / f"rank{rank}.txt" for rank in range(count)]
        port = free_port()
        self.processes = [
            context().Process(target=_run, args=(rank, count, port, output, list(map(str, arguments)), prepare))
            for rank, output in enumerate(self.outputs)
        ]
        for process in self.processes:
            process.start()

    def wait(self):
        """The exit codes, and what each process wrote."""
        end = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        hung = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        self.kill()
        texts = [output.read_text() for output in self.outputs]
        assert not hung, f"processes {hung} hung: {texts}"
        return [process.exitcode for process in self.processes], texts

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()


def _run(rank, count, port, output, arguments, prepare):
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(count)
    )
    import torch

    torch.set_num_threads(1)
    if prepare is not None:
        prepare(rank)
    from retinanet.cli import main

    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def wait_for(condition, process_alive=lambda: True):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not come"
        assert process_alive(), "the process has ended"
        time.sleep(0.02)


def rows(folder: Path):
    """Lines of metrics.csv so far."""
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


# What happens to a process; given to Ranks, which calls it with the number of each.


def bad_image_in_second(rank):
    from retinanet.common.errors import WorkError
    from retinanet.data.dataset import DetectionData

    read, count = DetectionData.read, 0

    def failing(self, index):
        nonlocal count
        count += 1
        if rank == 1 and count > 5:
            raise WorkError(f"{self.path(index)} cannot be read any more")
        return read(self, index)

    DetectionData.read = failing


def full_disk_in_first(rank):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def keeps_pythons_lock(rank):
    sys.setswitchinterval(100)  # seconds: until it waits for something


def second_is_killed(rank):
    from retinanet.training import trainer

    real, steps = trainer.backward, 0

    def backward(*arguments):
        nonlocal steps
        steps += 1
        if rank == 1 and steps > 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    trainer.backward = backward


def own_parts(rank):
    """The built-in parts of the tests' runs, given as functions."""
    from functools import partial

    import torch

    from retinanet.config.settings import MatchingSettings
    from retinanet.losses import box_loss, sigmoid_focal_loss
    from retinanet.ops.iou_assigner import match_reference
    from retinanet.training import trainer

    def matcher(anchors, boxes, labels):
        found, indices = match_reference(anchors, boxes, labels, MatchingSettings())
        return torch.where(found < 0, found, indices)

    trainer.train = partial(
        trainer.train,
        loss=sigmoid_focal_loss,
        box_loss=partial(box_loss, kind="smooth_l1"),
        matcher=matcher,
        optimizer=partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=1e-4),
    )
