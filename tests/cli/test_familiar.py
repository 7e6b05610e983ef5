"""Flags, words and verbs of other projects: understood where the meaning is the same, answered where it is not."""

import pytest

from retinanet.cli import VERBS, app, familiar, main
from retinanet.common.errors import RequestError

NAMES = [function.__name__ for function in VERBS]


def own_options(verb: str) -> set[str]:
    return {name for argument in app[verb].assemble_argument_collection() if argument.show for name in argument.names}


def translated(text: str) -> str:
    return " ".join(familiar.translated(text.split(), NAMES, own_options))


@pytest.mark.parametrize("verb", NAMES)
def test_the_table_is_true(verb):
    """No flag in it is one of the command's own, and each option that it names is."""
    own = own_options(verb)
    for flag, target in familiar.FLAGS[verb].items():
        assert f"--{flag}" not in own
        assert flag == flag.replace("_", "-")
        options = [word.rstrip(",;)") for word in target.split() if word.startswith("--")]
        if "retinanet " not in target:  # another command's
            assert set(options) <= own, (flag, target)
        if not target.startswith("--") and target not in (familiar.DATA, familiar.MODEL, familiar.SOURCE):
            assert len(target.split()) > 4, "a sentence"
    assert set(familiar.SWITCHES) <= own_options("predict")


def test_verbs_of_the_table_are_commands():
    assert set(familiar.VERBS.values()) <= set(NAMES)
    assert not (familiar.VERBS.keys() | familiar.ANSWERED_VERBS.keys()) & set(NAMES)
    for answer in familiar.ANSWERED_VERBS.values():
        verb = answer.split()[1]
        assert verb.startswith("-") or verb in NAMES


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train DATA --imgsz 640 --batch 8 --lr0 0.01", "train DATA --size 640 --batch-size 8 --lr 0.01"),
        ("train DATA --imgsz 640 640 --epochs 3", "train DATA --size 640 --epochs 3"),
        ("train --imgsz=[320,320] DATA", "train --size 320 DATA"),
        ("train --data DATA --weight_decay 0.1", "train --train.weight-decay 0.1 -- DATA"),
        ("train data=DATA epochs=10 imgsz=640 device=0,1", "train --epochs=10 --size 640 --device=0,1 -- DATA"),
        ("train DATA --name pets", "train DATA --output runs/pets"),
        ("train DATA name=pets project=work", "train DATA --output work/pets"),
        ("train DATA --model runs/a --cos-lr --quiet", "train DATA --weights runs/a --train.schedule cosine --quiet"),
        ("train DATA half=False cos_lr=True", "train DATA --train.schedule cosine"),
        ("train DATA --loss.gamma 2 loss.alpha=0.5", "train DATA --loss.gamma 2 --loss.alpha=0.5"),
        ("val model=runs/a data=DATA conf=0.1", "evaluate runs/a --threshold 0.1 -- DATA"),
        ("eval runs/a --data DATA --split test", "evaluate runs/a --split test -- DATA"),
        ("detect runs/a x.jpg --conf .3 --max_det 9", "predict runs/a x.jpg --threshold .3 --max-detections 9"),
        ("detect predict model=m source=a.jpg save=True", "predict m --draw -- a.jpg"),
        ("predict m --source a --source b --half", "predict m --precision fp16 -- a b"),
        ("predict m a save=False --save-txt --exist-ok", "predict m a --no-draw --format yolo --overwrite"),
        ("predict m -- --imgsz", "predict m -- --imgsz"),
        ("export --weights m --include onnx", "export m --format onnx"),
        ("infer m a.jpg", "predict m a.jpg"),
        ("benchmark", "bench"),
        ("--help", "--help"),
        ("trian DATA --imgsz 3", "trian DATA --imgsz 3"),
        ("predict m unknown=3", "predict m unknown=3"),
    ],
)
def test_what_is_understood(typed, meant):
    assert translated(typed) == meant


def test_a_file_with_an_equals_sign_stays_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "size=3.jpg").touch()
    assert translated("predict m size=3.jpg") == "predict m size=3.jpg"
    assert translated("predict m size=3") == "predict m --size=3"


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("train DATA --imgsz 640 480", ("--imgsz 640 480", "one number")),
        ("train DATA batch=-1", ("--batch -1", "leave it out")),
        ("train DATA --exist-ok", ("--exist-ok", "--output", "--resume RUN")),
        ("train DATA --mosaic 1", ("--mosaic", "--data.augmentation.flip")),
        ("train DATA time=2", ("time=2", "--budget 2h")),
        ("train DATA --project work", ("--project", "--name", "--output FOLDER")),
        ("train DATA --imgsz", ("--imgsz", "needs a value")),
        ("predict m a --iou 0.5", ("--iou", "retinanet convert", "nms-iou")),
        ("evaluate m DATA --max-det 300", ("--max-det", "100")),
        ("evaluate m DATA --imgsz 640", ("--imgsz", "leave it out")),
        ("export m --int8", ("--int8", "--precision int8 --calibrate FOLDER")),
        ("test m DATA", ("test", "retinanet evaluate MODEL DATA --split test")),
        ("track m a.mp4", ("retinanet predict MODEL VIDEO --track",)),
    ],
)
def test_what_is_answered(typed, facts, capsys):
    with pytest.raises(RequestError) as caught:
        translated(typed)
    assert all(fact in str(caught.value) for fact in facts)
    assert main(typed.split()) == 2
    assert capsys.readouterr().err.strip() == f"error: {caught.value}", "one line"


@pytest.mark.parametrize(
    ("typed", "right"),
    [("trian", "train"), ("evalute", "evaluate"), ("predct m a", "predict"), ("exprot m", "export")],
)
def test_mistyped_commands_get_the_nearest(typed, right, capsys):
    assert main(typed.split()) == 2
    line = capsys.readouterr().err
    assert f'"{right}"' in line
    assert len(line.splitlines()) == 1
