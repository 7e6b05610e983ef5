"""The command line as a user meets it: exit codes, messages, files. Everything runs in this process but the imports."""

import json
import re
from pathlib import Path

import pytest

import retinanet
from helpers.synthetic_data import bright_boxes, rectangles
from retinanet.cli import main
from retinanet.config.recipes import read_yaml
from retinanet.model import RetinaNet
from retinanet.training import loggers

TINY = [
    *("--model.backbone.name", "resnet18", "--model.head.depth", "1", "--model.head.width", "16"),
    *("--model.pyramid.channels", "16", "--model.preprocessing.size", "64", "--model.preprocessing.longer", "64"),
    *("--batch-size", "2", "--data.workers", "0", "--train.precision", "fp32"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return bright_boxes(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A trained detector, through the command line."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", str(data), "--output", str(folder), "--steps", "2", "--quiet", *TINY]) == 0
    return folder


def printed(capsys) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def error(capsys, *arguments: str, code: int = 2) -> str:
    """The line that a failing command ends with, without "error: "."""
    assert main(list(arguments)) == code
    line = printed(capsys)[1].strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# ------------------------------------------------------------------------------------------- help and wrong options


def test_version(capsys):
    assert main(["--version"]) == 0
    assert printed(capsys)[0].strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["tran"], ("tran", "train", "retinanet --help")),
        (["train", "d", "--epoch", "3"], ("--epoch", "--epochs", "retinanet train --help")),
        (["train", "d", "--train.lr", "fast"], ("--train.lr", "fast", "retinanet train --help")),
        (["train", "d", "e"], ("'e'", "retinanet train --help")),
        (["train"], ("retinanet train DATA", "--resume RUN")),
        (["demo", "--budget", "soon"], ("--budget", "soon", "90s")),
    ],
)
def test_a_wrong_request_is_one_line(capsys, arguments, facts):
    line = error(capsys, *arguments)
    assert all(fact in line for fact in facts)


# ------------------------------------------------------------------------------------------------------------ train


def test_train_on_a_missing_folder(capsys, tmp_path):
    assert f"{tmp_path}/no: no such" in error(capsys, "train", str(tmp_path / "no"))


def test_train_on_an_empty_folder(capsys, tmp_path):
    output = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    message = error(capsys, "train", f"{tmp_path}/empty", "--output", str(output))
    assert f"{tmp_path}/empty" in message
    assert "empty folder" in message
    assert not output.exists()


def test_train_on_an_unknown_layout(capsys, tmp_path):
    (tmp_path / "odd" / "stuff").mkdir(parents=True)
    (tmp_path / "odd" / "notes.txt").write_text("hello")
    message = error(capsys, "train", f"{tmp_path}/odd", "--output", f"{tmp_path}/run")
    for fact in (f"{tmp_path}/odd", "COCO", "notes.txt, stuff/"):
        assert fact in message


@pytest.mark.slow
def test_train_with_a_broken_image_says_so_and_goes_on(capsys, tmp_path):
    root = bright_boxes(tmp_path / "data")
    (root / "train" / "002.png").write_bytes(b"not an image")
    result = tmp_path / "result.json"
    options = ["--output", f"{tmp_path}/run", "--steps", "1", "--json", str(result), *TINY]
    assert main(["train", str(root), *options]) == 0
    _, err = printed(capsys)
    assert "split train (COCO): 3 images, 6 boxes of 2 classes" in err
    assert "0 cat (3), 1 dog (3)" in err
    assert "002.png" in err
    assert json.loads(result.read_text())["steps"] == 1


def test_strict_refuses_a_broken_image(capsys, tmp_path):
    root = bright_boxes(tmp_path / "data")
    (root / "train" / "002.png").write_bytes(b"not an image")
    message = error(capsys, "train", str(root), "--strict", "--output", f"{tmp_path}/run", "--steps", "1", *TINY)
    assert "strict refuses any" in message
    assert "002.png" in message


def test_a_folder_with_a_run_is_not_written_over(capsys, data, run):
    before = (run / "best.safetensors").read_bytes()
    message = error(capsys, "train", str(data), "--output", str(run), "--steps", "1", *TINY)
    for fact in (f"{run} exists and is not empty", "--output", f"--resume {run}"):
        assert fact in message
    assert (run / "best.safetensors").read_bytes() == before


def test_runs_are_numbered(capsys, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "tiny-1").mkdir(parents=True)
    assert main(["train", str(data), "--steps", "1", *TINY]) == 0
    out, err = printed(capsys)
    assert (tmp_path / "runs" / "tiny-2" / "best.safetensors").is_file()
    assert f"retinanet evaluate runs/tiny-2 {data}" in out.split("next:")[1]
    assert "step 1/1 · epoch 1 of 1 · " in err


def test_loggers(capsys, data, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    options = ["train", str(data), "--output", str(folder), "--steps", "1", "-q", *TINY]
    assert "--log" in error(capsys, *options, "--log", "clearml")
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    line = error(capsys, *options, "--log", "wandb")
    assert "pip install 'retinanet[wandb]'" in line
    assert not folder.exists()
    monkeypatch.undo()
    assert main([*options, "--log", "tensorboard"]) == 0
    assert list((folder / "tensorboard").iterdir())


@pytest.mark.slow
def test_resume_takes_data_and_settings_from_the_run_and_a_new_length(capsys, data, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", str(data), "--output", str(folder), "--steps", "1", "-q", *TINY]) == 0
    assert main(["train", "--resume", str(folder), "--steps", "2", "--json"]) == 0
    out, err = printed(capsys)
    assert json.loads(out)["steps"] == 2
    assert "from step 1" in err


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--loss.gamma", "0"], ("loss.gamma 2", "with 0")),
        (["--config", "digits"], ("--resume", "leave out --config")),
        (["--output", "x"], ("--resume", "leave out --output")),
    ],
)
def test_resume_refuses_what_contradicts_the_run(capsys, run, options, facts):
    line = error(capsys, "train", "--resume", str(run), *options)
    assert all(fact in line for fact in (str(run), *facts))


def test_resume_refuses_other_data(capsys, run, data, tmp_path):
    error(capsys, "train", str(tmp_path), "--resume", str(run))  # no data set at all
    other = rectangles(tmp_path / "other", count=7)
    message = error(capsys, "train", str(other), "--resume", str(run))
    assert message.startswith(f"cannot resume {run}: it was trained on 4 images")


def test_resume_of_what_is_no_run(capsys, tmp_path):
    assert f"{tmp_path}/no: there is no such folder" in error(capsys, "train", "--resume", f"{tmp_path}/no")
    assert f"{tmp_path}: it is not the folder of a run" in error(capsys, "train", "--resume", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--device", "0", "--devices", "2"], ("--device 0", "--train.devices 2", "contradict")),
        (["--device", "cpu", "--train.accelerator", "mps"], ("--device cpu", "--train.accelerator mps")),
        (["--device", "0;1"], ("device 0;1", "0,1")),
        (["--device", "hpu"], ("hpu", "cannot be used here")),
    ],
)
def test_train_refuses_a_device(capsys, data, tmp_path, options, facts):
    line = error(capsys, "train", str(data), "--output", f"{tmp_path}/run", *options)
    assert all(fact in line for fact in facts)
    assert not (tmp_path / "run").exists()


def test_train_with_the_words_of_other_projects(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [f"data={data}", "name=pets", "device=cpu", "--lr0", "0.005", "--batch", "2", "--steps", "1", "--quiet"]
    options = [word for word in TINY if word not in ("--batch-size", "2")]
    assert main(["train", *words, *options]) == 0
    written = read_yaml(tmp_path / "runs" / "pets" / "settings.yaml")
    assert written["train"]["batch_size"] == 2
    assert written["train"]["accelerator"] == "cpu"
    assert written["train"]["lr"] == 0.005


def test_stopping_says_how_to_go_on(capsys, monkeypatch, data, tmp_path):
    import retinanet.training.trainer

    def stopped(*arguments, **options):
        raise KeyboardInterrupt("step 3 is saved; go on with --resume somewhere")

    monkeypatch.setattr(retinanet.training.trainer, "train", stopped)
    assert main(["train", str(data), "--output", f"{tmp_path}/run"]) == 130
    assert printed(capsys)[1].splitlines()[-1] == "stopped; step 3 is saved; go on with --resume somewhere"


def test_an_unexpected_error_is_one_line_and_debug_shows_where(capsys, monkeypatch, data, tmp_path):
    import retinanet.training.trainer

    def broken(*arguments, **options):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(retinanet.training.trainer, "train", broken)
    message = error(capsys, "train", str(data), "--output", f"{tmp_path}/run", code=1)
    assert message == "unexpected ZeroDivisionError: division (--debug shows where)"
    assert main(["train", str(data), "--output", f"{tmp_path}/run", "--debug"]) == 1
    assert "Traceback (most recent call last)" in printed(capsys)[1]


def test_only_the_first_process_speaks(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", str(tmp_path / "no")]) == 2
    assert printed(capsys) == ("", "")


# --------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate(capsys, run, data, tmp_path):
    result = tmp_path / "result.json"
    assert main(["evaluate", str(run), str(data), "--json", str(result)]) == 0
    out, err = printed(capsys)
    assert "average precision, mean over IoU 0.50 to 0.95" in out
    assert "average recall of large objects" in out
    assert "cat" in out
    assert "split val (COCO): 4 images, 8 boxes of 2 classes" in err
    values = json.loads(result.read_text())
    assert set(values["stats"]) == {
        *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    }
    assert [(row["name"], row["boxes"]) for row in values["per_class"]] == [("cat", 4), ("dog", 4)]
    assert f"best F1 {values['best_f1']:.3f}" in out
    assert set(values["thresholds"]) == {"cat", "dog"}
    assert 0 <= values["threshold"] <= 1


def test_evaluate_maps_classes_by_name(capsys, run, tmp_path):
    other = bright_boxes(tmp_path / "other", splits=("val",), names=("dog", "bird"))
    assert main(["evaluate", str(run), str(other)]) == 0
    _, err = printed(capsys)
    assert "no boxes of cat: these classes have no AP and are left out of the means" in err
    assert "class that the model does not know (4 left out)" in err


def test_evaluate_on_data_without_any_class_of_the_model(capsys, run, tmp_path):
    other = bright_boxes(tmp_path / "other", splits=("val",), names=("car", "bus"))
    message = error(capsys, "evaluate", str(run), str(other))
    assert all(fact in message for fact in (str(other), "car, bus", "cat, dog"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "{t}/no", "{t}"], r"no model {t}/no: .*run folder"),
        (["evaluate", "{t}", "{t}"], r"{t} .*best\.safetensors or last\.safetensors"),
        (["evaluate", "{t}", "{t}/no"], r"no data set {t}/no"),
        (["evaluate", "{t}", "{t}", "--json", "{t}/no/x.json"], r"--json {t}/no/x\.json: .*folder {t}/no"),
        (["evaluate", "{t}", "{t}", "--json", "{t}/x.jpg"], r"--json {t}/x\.jpg: .*\.json.*--json -"),
        (["evaluate", "{t}", "{t}", "--batch-size", "0"], r"--batch-size must be at least 1"),
    ],
)
def test_what_is_not_there_is_named(capsys, tmp_path, arguments, message):
    line = error(capsys, *(a.format(t=tmp_path) for a in arguments))
    assert re.search(message.format(t=re.escape(str(tmp_path))), line)


def test_compare(capsys, run, data, tmp_path):
    result = tmp_path / "result.json"
    options = ["--compare", str(run), "--resamples", "20", "--json", str(result)]
    assert main(["evaluate", str(run), str(data), *options]) == 0
    out, _ = printed(capsys)
    assert f"compared with {run}, on the same images" in out
    values = json.loads(result.read_text())
    assert values["differences"]["AP"] == {"value": 0, "low": 0, "high": 0, "resamples": 20}, "a model and itself"
    assert values["intervals"]["AP"]["value"] == pytest.approx(values["stats"]["AP"], abs=1e-9)


def test_compare_wants_the_same_classes(capsys, run, data, tmp_path):
    settings = retinanet.load(run).settings
    retinanet.Detector(RetinaNet(settings, 2), ["cat", "cow"]).save(tmp_path / "other.safetensors")
    message = error(capsys, "evaluate", str(run), str(data), "--compare", f"{tmp_path}/other.safetensors")
    for fact in (f"--compare {tmp_path}/other.safetensors", "same classes", "cow, dog"):
        assert fact in message


# ---------------------------------------------------------------------------------------------------------- predict


def test_predict(capsys, run, data, tmp_path):
    folder, result = tmp_path / "found", tmp_path / "result.json"
    options = ["--threshold", "0", "--max-detections", "5", "--size", "64", "--format", "json", "csv", "yolo"]
    assert main(["predict", str(run), str(data / "val"), "--output", str(folder), "--json", str(result), *options]) == 0
    out, _ = printed(capsys)
    values = json.loads(result.read_text())
    assert values["images"] == 4
    assert f"{sum(values['detections'].values())} detections in 4 images, score above 0: " in out
    assert f"in {folder}: the drawn images and detections.json, detections.csv, labels" in out
    assert set(values["detections"]) <= {"cat", "dog"}
    drawn = sorted(path.name for path in folder.glob("*.png"))
    assert drawn == ["001.png", "002.png", "003.png", "004.png"]


def test_predict_overwrites_only_what_it_writes(capsys, run, data, tmp_path):
    folder, image = tmp_path / "found", str(data / "val" / "001.png")
    for name in ("001.png", "detections.json", "mine.txt"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("old")
    assert f"{folder} exists and is not empty" in error(capsys, "predict", str(run), image, "--output", str(folder))
    assert (folder / "001.png").read_text() == "old"
    assert main(["predict", str(run), image, "--output", str(folder), "--overwrite", "--quiet"]) == 0
    assert (folder / "mine.txt").read_text() == "old"
    assert (folder / "001.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((folder / "detections.json").read_text())["images"]) == 1


def test_predict_never_replaces_its_source(capsys, run, data, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "001.png").write_bytes(before := (data / "val" / "001.png").read_bytes())
    options = [str(run), str(source), "--output", str(source), "--overwrite"]
    assert f"{source}/001.png would replace the source" in error(capsys, "predict", *options)
    assert main(["predict", *options, "--no-draw", "--quiet"]) == 0
    assert (source / "001.png").read_bytes() == before
    assert (source / "detections.json").is_file()


def test_agnostic_nms(capsys, run, data, tmp_path):
    """The same option of predict and evaluate."""
    counts = {}
    for nms in ("class", "agnostic"):
        options = [
            "--threshold",
            "0",
            "--max-detections",
            "5000",
            "--nms",
            nms,
            "--no-draw",
            "--output",
            str(tmp_path / nms),
            "--json",
        ]
        assert main(["predict", str(run), str(data / "val"), *options]) == 0
        counts[nms] = sum(json.loads(capsys.readouterr().out)["detections"].values())
        assert main(["evaluate", str(run), str(data), "--nms", nms, "--resamples", "0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 4
    assert 0 < counts["agnostic"] < counts["class"]


def test_predict_on_a_text_file_named_jpg(capsys, run, data, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("these are notes")
    message = error(capsys, "predict", str(run), str(text), "--output", f"{tmp_path}/a", code=1)
    assert "no image could be read" in message
    assert f"{text}: it is not an image" in message
    good = str(data / "val" / "001.png")
    assert main(["predict", str(run), str(text), good, "--output", f"{tmp_path}/b", "--no-draw"]) == 0
    out, err = printed(capsys)
    assert f"cannot read {text}: it is not an image" in err
    assert "1 files could not be read" in out
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["detections.json"]


def test_predictions_are_numbered(capsys, run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for count in (1, 2):
        assert main(["predict", str(run), str(data / "val"), "--quiet"]) == 0
        assert (tmp_path / "runs" / f"predict-{count}" / "detections.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{t}/no", "x.jpg"], "no model {t}/no: .*run folder"),
        (["{run}"], "retinanet predict MODEL SOURCE"),
        (["{run}", "{t}/no.jpg"], "no image or folder {t}/no.jpg"),
        (["{run}", "{t}/*.jpg"], r"pattern {t}/\*\.jpg"),
        (["{run}", "{t}"], "no image or video in the folder {t}"),
        (["{run}", "{run}", "--output", "{run}"], "{run} exists and is not empty: .*--output"),
        (["{run}", "{run}", "--threshold", "1"], r"--threshold must be in \[0, 1\), not 1"),
        (["{run}", "{run}", "--size", "0"], "--size must be at least 1, not 0"),
        (["{run}", "{run}", "--max-pixels", "0"], "--max-pixels must be at least 1, not 0"),
        (["{run}", "{run}", "--device", "tpu9"], "device tpu9 cannot be used here: "),
        (["{run}", "{run}", "--device", "0,1"], "device 0,1 cannot be used here"),
    ],
)
def test_predict_refuses(capsys, run, tmp_path, arguments, message):
    line = error(capsys, "predict", *(a.format(t=tmp_path, run=run) for a in arguments))
    assert re.search(message.format(t=re.escape(str(tmp_path)), run=re.escape(str(run))), line)


# ------------------------------------------------------------------------------------------------------------- paper


def test_paper_curves_need_no_data(tmp_path, capsys):
    assert main(["paper", "figure-1", "figure-5", "figure-6", "--output", str(tmp_path / "p")]) == 0
    assert "figure-6" in capsys.readouterr().out
    assert {p.parent.name for p in (tmp_path / "p").glob("*/figure.svg")} == {"figure-1", "figure-5", "figure-6"}
    assert not (tmp_path / "p" / "scenes").exists()


def test_paper_figure_4_of_any_model(run, data, tmp_path, capsys):
    file = tmp_path / "four.json"
    options = ["--model", str(run), "--data", str(data), "--output", str(tmp_path / "p"), "--json", str(file)]
    assert main(["paper", "figure-4", *options]) == 0
    assert "the hardest 1 % of" in capsys.readouterr().out
    numbers = json.loads(file.read_text())["figure-4"]["gamma"]
    assert set(numbers) == {"0", "0.5", "1", "2"}
    assert numbers["2"]["negatives"] > 1000
    assert (tmp_path / "p" / "figure-4" / "figure.png").exists()
    assert not (tmp_path / "p" / "runs").exists()  # nothing had to be trained


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "NAMES requires an argument"),
        (["table-1b", "--seeds", "0"], "--seeds must be at least 1"),
        (["table-1b", "--data", "nowhere"], "there is no data set nowhere"),
        (["table-1b", "--model", "m"], "--model is the model of figure-4"),
        (["table-1b", "--recipe", "nothing"], "no recipe 'nothing'"),
        (["table-1b", "--budget", "long"], "a number of steps such as 300, or a time"),
        (["table-9"], "table-9"),
    ],
)
def test_paper_says_what_is_wrong(arguments, reason, tmp_path, capsys):
    assert main(["paper", *arguments, *([] if not arguments else ["--output", str(tmp_path / "p")])]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "p").exists()
