"""Settings so small that a run takes seconds; for tests that train."""

from retinanet.config import recipes

TINY = {
    "model": {
        "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}, "frozen_norm": True},
        "pyramid": {"channels": 16},
        "head": {"depth": 1, "width": 16, "norm": "group"},
        "anchors": {"sizes": [16, 32, 64, 128, 256]},
        "preprocessing": {"size": 64, "longer": 96},
    },
    "data": {"workers": 0},
    "train": {
        "batch_size": 4,
        "steps": 6,
        "optimizer": "adamw",
        "lr": 1e-3,
        "lr_batch": 0,
        "precision": "fp32",
        "accelerator": "cpu",
        "report": False,
    },
}


def tiny(**train):
    """The tiny settings, with these of ``train`` changed."""
    return recipes.load(None, recipes.merge(TINY, {"train": train}))
