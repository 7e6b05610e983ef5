"""A run that begins from a detector of other classes: what fits is kept, the rest is new, and both are told."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import retinanet
from helpers.recorder import Calling, Recorder
from helpers.tiny_run import TINY, tiny
from retinanet import checkpoints
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.common.fields import from_plain
from retinanet.config import recipes
from retinanet.config.settings import Settings
from retinanet.data import open_data
from retinanet.model import RetinaNet
from retinanet.terminal.progress import kept_lines
from retinanet.training import fitted_defaults, initial_weights
from retinanet.training.events import Started, StateSaved, WeightsKept
from retinanet.training.run_folder import read_run
from retinanet.training.step_cost import Machine
from retinanet.training.trainer import train

MANY = (*(f"thing {i}" for i in range(78)), "Person", "red")
FEW = ("helmet", "person", "mask")
MODEL = from_plain(Settings, TINY).model
OUTPUT = "class_subnet.output"
HERE = Machine(torch.device("cpu"), "fp32", 1, 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A checkpoint of 80 classes, every number in it another."""
    torch.manual_seed(5)
    model = RetinaNet(MODEL, len(MANY))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor) * 0.1
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    path = tmp_path_factory.mktemp("checkpoint") / "many.safetensors"
    checkpoints.native.save(path, model.state_dict(), model.settings, MANY, {"origin": "a test"})
    return path


def begin(source, class_names, **model):
    settings = initial_weights.settings(None, {"train": {"weights": str(source)}, "model": model})
    with torch.random.fork_rng():
        torch.manual_seed(settings.train.seed)
        return initial_weights.begin(settings, class_names)


def counted(state):
    return {name for name in state if not name.endswith("num_batches_tracked")}


def test_what_fits_is_kept_and_the_rest_is_new(many):
    model, kept = begin(many, FEW)
    ours, theirs = model.state_dict(), load_file(many)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = RetinaNet(model.settings, len(FEW)).state_dict()
    for name in ours.keys() - set(initial_weights.CLASS_OUTPUT):
        assert torch.equal(ours[name], theirs[name]), name
    for name in initial_weights.CLASS_OUTPUT:
        for anchor in range(9):
            person = ours[name][anchor * 3 + 1]
            assert torch.equal(person, theirs[name][anchor * 80 + 78])
            for new in (0, 2):
                assert torch.equal(ours[name][anchor * 3 + new], fresh[name][anchor * 3 + new])
    assert ours[f"{OUTPUT}.bias"][0] == pytest.approx(-4.595, abs=1e-3), "the prior of 0.01"
    assert ours[f"{OUTPUT}.weight"][::3].std() == pytest.approx(0.01, rel=0.1)
    assert kept.kept == len(counted(ours)) - 2
    assert (kept.classes, kept.new_classes) == (("person",), ("helmet", "mask"))
    assert (kept.new, kept.left, kept.changed) == ((), (), {})
    (line,) = kept_lines(kept)
    for fact in (f"{many} (a test)", f" {kept.kept} tensors", "kept for person", "new for helmet, mask"):
        assert fact in line


def test_a_class_of_both_is_found_as_before_any_training(many):
    """Logits and deltas of a class that both know agree for every anchor."""
    model, _ = begin(many, FEW)
    state = checkpoints.native.load(many)
    old = RetinaNet(state.settings, 80, load_weights=False)
    old.load_state_dict(state.state)
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        before, after = old.eval()(images), model.eval()(images)
    for one, other in zip(before.logits, after.logits):
        torch.testing.assert_close(other[..., 1], one[..., 78])
    for one, other in zip(before.deltas, after.deltas):
        torch.testing.assert_close(other, one)


def test_the_same_classes_are_the_same_network(many):
    model, kept = begin(many, MANY)
    assert all(torch.equal(tensor, load_file(many)[name]) for name, tensor in model.state_dict().items())
    assert kept_lines(kept) == [f"weights of {many} (a test): all {kept.kept} tensors kept"]
    assert kept.kept == len(counted(model.state_dict()))


def test_the_same_classes_in_another_order(many):
    model, kept = begin(many, MANY[::-1])
    ours, theirs = model.state_dict()[f"{OUTPUT}.bias"], load_file(many)[f"{OUTPUT}.bias"]
    assert torch.equal(ours.view(9, 80), theirs.view(9, 80).flip(1))
    assert (kept.classes, kept.new_classes) == (MANY[::-1], ())


def test_as_many_classes_of_other_names_are_not_taken_for_the_same(many):
    model, kept = begin(many, tuple(f"other {i}" for i in range(80)))
    assert not torch.equal(model.state_dict()[f"{OUTPUT}.bias"], load_file(many)[f"{OUTPUT}.bias"])
    assert kept.classes == ()
    assert set(kept.new) == set(kept.left) == set(initial_weights.CLASS_OUTPUT)


def test_a_name_in_the_same_case_goes_first(tmp_path):
    names = ("Cat", "cat", "DOG")
    model = RetinaNet(MODEL, 3)
    torch.nn.init.normal_(model.class_subnet.output.bias)
    checkpoints.native.save(tmp_path / "m.safetensors", model.state_dict(), model.settings, names)
    ours = begin(tmp_path / "m.safetensors", ("dog", "cat"))[0].class_subnet.output.bias.view(9, 2)
    theirs = model.class_subnet.output.bias.view(9, 3)
    assert torch.equal(ours, theirs[:, [2, 1]])


def test_what_the_user_sets_otherwise_is_new_and_told(many):
    anchors = {"scales": [1.0], "ratios": [0.5, 1.0, 2.0]}
    model, kept = begin(many, FEW, anchors=anchors, head={"depth": 2}, pyramid={"p6_from": "p5"})
    assert model.settings.anchors.sizes == MODEL.anchors.sizes
    told = {"class_subnet.output", "box_subnet.output", "class_subnet.tower.1.conv", "box_subnet.tower.1.conv"}
    assert told <= {name.rpartition(".")[0] for name in kept.new}
    assert set(kept.changed) == {"model.anchors.scales", "model.head.depth", "model.pyramid.p6_from"}
    assert "box_subnet.output.weight" in kept.left, "it is of another shape"
    lines = kept_lines(kept)
    assert lines[1].startswith(f"  new: {len(kept.new)} tensors, ")
    assert lines[2].startswith(f"  left out: {len(kept.left)} tensors, ")
    assert "  model.head.depth is 2, in the checkpoint 1" in lines


def test_a_tensor_that_the_model_lacks_is_told(many, tmp_path):
    checkpoint = checkpoints.native.load(many)
    path = tmp_path / "more.safetensors"
    checkpoints.native.save(path, checkpoint.state | {"mask_head.weight": torch.ones(1)}, checkpoint.settings, MANY)
    _, kept = begin(path, MANY)
    assert kept.left == ("mask_head.weight",)
    assert kept_lines(kept)[1] == "  left out: 1 tensor, mask_head.weight"


def test_the_checkpoints_backbone_weights_are_not_fetched(many, tmp_path):
    checkpoint = checkpoints.native.load(many)
    there = replace(checkpoint.settings, backbone=replace(checkpoint.settings.backbone, weights="imagenet"))
    path = tmp_path / "pretrained.safetensors"
    checkpoints.native.save(path, checkpoint.state, there, MANY)
    assert initial_weights.settings(None, {"train": {"weights": str(path)}}).model.backbone.weights == "none"
    # And weights that the user asks for are not read where the checkpoint has all of the backbone.
    begin(path, FEW, backbone={"weights": "/no/such/file"})


def test_settings_come_from_the_checkpoint_the_recipe_and_the_user(many, tmp_path):
    given = {"train": {"weights": str(many), "steps": 3}, "model": {"preprocessing": {"size": 80}}}
    made = initial_weights.settings(None, given)
    assert made.model.head == MODEL.head
    assert (made.model.preprocessing.size, made.model.preprocessing.longer) == (80, 96)
    assert (made.train.optimizer, made.train.steps, made.train.epochs) == ("adamw", 3, None)
    path = tmp_path / "own.yaml"
    path.write_text(f"model: {{head: {{depth: 2}}}}\ntrain: {{weights: {many}, epochs: 2}}\n")
    made = initial_weights.settings(str(path), {"model": {"head": {"norm": "none"}}})
    assert (made.model.head.depth, made.model.head.width, made.model.head.norm) == (2, 16, "none")
    assert made.train.epochs == 2
    path.write_text("model: {head: {depth: 2}}\ntrain: {epochs: 2}\n")  # of another model: the checkpoint's stays
    made = initial_weights.settings(str(path), {"train": {"weights": str(many)}})
    assert (made.model.head.depth, made.train.epochs) == (1, 2)
    assert initial_weights.overruled(recipes.values(str(path))) == ["model.head.depth"]
    assert made.train.epochs == 2
    # Another backbone is not built and fed as the checkpoint's.
    made = initial_weights.settings(None, {**given, "model": {"backbone": {"name": "mobilenetv2_100"}}})
    assert made.model.backbone.options == {}
    assert made.model.preprocessing.mean is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"backbone": {"name": "mobilenetv2_100"}}, "backbone of .* does not fit .*mobilenetv2_100"),
        # Another ResNet: that some of its vectors are as long means nothing.
        ({"backbone": {"name": "resnet18", "options": {"channels": [8, 12, 24, 32]}}}, "backbone of .* does not fit"),
    ],
)
def test_another_backbone(many, model, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        begin(many, FEW, **model)
    assert "\n" not in str(caught.value)


def test_another_backbone_with_weights_of_its_own_keeps_the_rest(many, tmp_path):
    import timm

    channels = [8, 12, 24, 16]
    torch.manual_seed(3)
    body = timm.create_model("resnet18", features_only=True, channels=channels)
    torch.save(body.state_dict(), tmp_path / "body.pth")
    backbone = {"options": {"channels": channels}, "weights": str(tmp_path / "body.pth")}
    model, kept = begin(many, FEW, backbone=backbone)
    assert torch.equal(model.backbone.body.conv1.weight, body.conv1.weight)
    assert "backbone.body.conv1.weight" in kept.new
    assert torch.equal(model.box_subnet.output.weight, load_file(many)["box_subnet.output.weight"])


def test_sources_that_cannot_be_used(many, tmp_path):
    checkpoint = checkpoints.native.load(many)
    bad = dict(checkpoint.state)
    bad["pyramid.output.3.conv.weight"] = torch.full_like(bad["pyramid.output.3.conv.weight"], float("nan"))
    checkpoints.native.save(tmp_path / "nan.safetensors", bad, checkpoint.settings, MANY)
    with pytest.raises(RequestError, match=r"nan.safetensors: pyramid.output.3.conv.weight .* finite"):
        begin(tmp_path / "nan.safetensors", FEW)
    with pytest.raises(RequestError, match=r"there is no .*missing\.safetensors"):
        begin(tmp_path / "missing.safetensors", FEW)
    with pytest.raises(RequestError, match=r"one of auto, coco, imagenet, none"):
        tiny(weights="")


@pytest.mark.slow
def test_a_run_from_the_command_line(many, data, tmp_path, capsys):
    """Told, recorded, and resumed without the checkpoint."""
    copy, run = tmp_path / "copy.safetensors", tmp_path / "run"
    copy.write_bytes(many.read_bytes())
    options = ["--data.workers", "0", "--train.precision", "fp32", "--train.accelerator", "cpu"]
    options += ["--weights", str(copy), "--explain"]
    assert main(["train", str(data), "--steps", "2", "--output", str(run), *options]) == 0
    printed = capsys.readouterr().err
    assert f"weights of {copy} (a test): " in printed
    assert "class output kept for red; class output new for green\n" in printed
    facts = json.loads((run / "run.json").read_text())
    assert facts["weights"]["source"] == str(copy)
    assert facts["weights"]["classes"] == ["red"]
    assert facts["weights"]["new_classes"] == ["green"]
    made = {choice["setting"]: choice["value"] for choice in facts["choices"]}
    assert made["model.anchors.sizes"] == list(MODEL.anchors.sizes)
    assert (made["model.preprocessing.size"], made["model.backbone.name"]) == (64, "resnet18")
    settings = read_run(run)[1]
    assert settings.model.anchors == MODEL.anchors
    assert settings.train.weights == str(copy)
    for choice in facts["choices"]:
        assert choice["reason"] in printed
    copy.unlink()
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 0
    assert "weights of" not in capsys.readouterr().err
    assert retinanet.load(run / "last.safetensors").class_names == ("red", "green")
    assert checkpoints.origin(checkpoints.load(run).extra) is None, "what was trained here is our own"
    assert main(["train", "--resume", str(run), "--weights", "other.safetensors"]) == 2
    assert f"has train.weights {copy} and cannot go on with other.safetensors" in capsys.readouterr().err


def test_a_run_begins_with_what_was_kept(many, data, tmp_path):
    """In the saved state before the first step, the average and frozen parts included."""
    changes = {"train": {"weights": str(many), "ema": 0.9, "steps": 3, "lr": 1e-3, "eval_every": 0.0},
               "model": {"backbone": {"frozen_stages": 2}}}  # fmt: skip
    settings = recipes.load(None, recipes.merge(TINY, changes))
    saved, recorder = [], Recorder()

    def see(event):
        if isinstance(event, StateSaved) and not saved:
            saved.append(torch.load(event.path, weights_only=True))

    train(data, settings, tmp_path / "run", callbacks=[recorder, Calling(see)])
    theirs = load_file(many)
    assert saved[0]["progress"]["step"] == 0
    for name in ("backbone.body.conv1.weight", "box_subnet.output.weight", "pyramid.p6.conv.bias"):
        assert torch.equal(saved[0]["model"][name], theirs[name])
        assert torch.equal(saved[0]["ema"][name], theirs[name])
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert torch.equal(after["backbone.body.layer1.0.conv1.weight"], theirs["backbone.body.layer1.0.conv1.weight"])
    assert not torch.equal(after["box_subnet.output.weight"], theirs["box_subnet.output.weight"])
    (event,) = recorder.of(WeightsKept)
    assert event.kept.classes == ("red",)
    assert recorder.events.index(event) < recorder.events.index(recorder.of(Started)[0])


def test_choices_for_finetuning(many, data):
    """What the user gave stays, anchors too unless others are asked for."""
    opened = open_data(data, "train")
    given = {"train": {"weights": str(many), "lr": 0.5}, "model": {"preprocessing": {"size": 80}}}
    settings, choices = fitted_defaults.fit(given, False, opened, opened, HERE)
    made = {choice.setting: choice.value for choice in choices}
    assert settings.train.lr == 0.5
    assert (settings.model.preprocessing.size, settings.model.anchors) == (80, MODEL.anchors)
    assert not {"train.lr", "model.preprocessing.size", "model"} & set(made)
    assert made["train.steps"] == settings.train.steps == fitted_defaults.FINETUNING.steps[0]
    assert settings.train.beta2 == 0.99
    assert settings.model.backbone.frozen_norm
    fitted, choices = fitted_defaults.fit(given, True, opened, opened, HERE)
    assert fitted.model.anchors != MODEL.anchors
    assert fitted.model.anchors.per_position == 9
