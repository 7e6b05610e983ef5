"""Help as a user reads it: short pages that are true, everything under --help-all, completion by the Tab key."""

import shlex
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

import retinanet
from helpers.synthetic_data import black_images
from retinanet.cli import VERBS, app, help_pages, main, options
from retinanet.common.fields import from_plain
from retinanet.config.convert import dotted, to_plain
from retinanet.config.settings import Settings
from retinanet.model import RetinaNet
from retinanet.training import fitted_defaults
from retinanet.training.preparation import Machine

NAMES = [function.__name__ for function in VERBS]
LINES, COLUMNS = 31, 110


def page(capsys, monkeypatch, *arguments: str, columns: int = COLUMNS) -> list[str]:
    """The lines that a command shows on a terminal of this width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for each in (app, *(app[name] for name in NAMES)):
        monkeypatch.setattr(each, "_fallback_console", None)  # it is made once, with the width at that time
    assert main(list(arguments)) == 0
    return capsys.readouterr().out.splitlines()


def option_names(verb: str) -> list[str]:
    """The options of a command as cyclopts understands them; the first name of each."""
    arguments = app[verb].assemble_argument_collection()
    return [a.name for a in arguments if a.name.startswith("--") and a.show]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom retinanet.cli import main\n"
        "assert main([]) == main(['--help']) == main(['train', '--help-all']) == 0\n"
        "assert main(['train', '--epoch', '3']) == main(['train', 'iou=3']) == main(['tran']) == 2\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lightning', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("demo", "train", "evaluate", "predict"):
        assert verb in done.stdout


def test_no_arguments_show_a_start(capsys, monkeypatch):
    lines = page(capsys, monkeypatch, columns=80)
    commands = [line for line in lines if line.startswith("  retinanet ")]
    assert [line.split()[1] for line in commands] == ["demo", "train", "predict"]
    assert len(lines) <= 8
    assert "retinanet --help" in lines[-1]


@pytest.mark.parametrize("verb", NAMES)
def test_every_command_has_a_short_page(capsys, monkeypatch, verb):
    lines = page(capsys, monkeypatch, verb, "--help")
    assert lines[0].startswith(f"Usage: retinanet {verb}")
    assert any(line.startswith(f"  retinanet {verb}") for line in lines[1:]), "an example"
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert f"retinanet {verb} --help-all" in lines[-1]
    assert "Settings(" not in "\n".join(lines), "a dataclass shown instead of a sentence"


@pytest.mark.parametrize("verb", NAMES)
def test_help_all_has_every_option(capsys, monkeypatch, verb):
    text = "\n".join(page(capsys, monkeypatch, verb, "--help-all"))
    assert [name for name in option_names(verb) if f"{name}" not in text] == []
    for option in ("--json", "--debug", "--quiet", "-q"):
        assert option in text


def test_usual_options_of_train_are_on_the_short_page_and_settings_are_not(capsys, monkeypatch):
    short = "\n".join(page(capsys, monkeypatch, "train", "--help"))
    everything = "\n".join(page(capsys, monkeypatch, "train", "--help-all"))
    for option in ("budget", "epochs", "weights", "size", "batch-size", "device", "val", "config", "output", "resume"):
        assert f"\n  --{option} " in short
    for option in ("--loss.gamma", "--model.anchors.ratios", "--data.augmentation.flip", "--seed"):
        assert option not in short
        assert option in everything
    assert "--train.batch-size" not in short, "one name is enough"
    assert everything.index("--epochs") < everything.index("--train.clip") < everything.index("--loss.beta")


def test_a_narrow_terminal_wraps_lines(capsys, monkeypatch):
    lines = page(capsys, monkeypatch, "predict", "--help-all", columns=60)
    assert max(len(line) for line in lines if not line.startswith("  retinanet")) <= 60


@pytest.mark.parametrize("function", VERBS, ids=NAMES)
def test_examples_are_commands_that_parse(function):
    lines = help_pages.examples(function)
    assert lines
    for line in lines:
        if line.startswith("retinanet "):
            command, bound, _ = app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
            assert command is function
            assert bound.arguments or function.__name__ in ("demo", "bench")


@pytest.mark.parametrize("weights", ["none", "detector", "backbone"])
def test_the_defaults_shown_are_those_of_a_fitted_run(tmp_path, weights):
    """Each setting has the value that --help-all shows, unless that says that it is fitted."""
    boxes = [(4, 6, 22, 28, 0), (30, 20, 52, 40, 1)]
    data = black_images(tmp_path, [((64, 64), boxes)] * 8)
    given = {"model": {"preprocessing": {"size": 64, "longer": 96}}}
    if weights == "backbone":
        file = tmp_path / "resnet18.safetensors"
        save_file(timm.create_model("resnet18").state_dict(), file)
        given["train"] = {"weights": str(file)}
    elif weights == "none":
        given["train"] = {"weights": "none"}
    else:
        file = tmp_path / "tiny.safetensors"
        model = {"backbone": {"name": "resnet18", "weights": "none"}, "pyramid": {"channels": 16}}
        settings = from_plain(Settings, {"model": {**model, "head": {"depth": 1, "width": 16}}})
        retinanet.Detector(RetinaNet(settings.model, 2), data.class_names).save(file)
        given["train"] = {"weights": str(file)}
    here = Machine(torch.device("cpu"), "fp32", 1, 0)
    made, _ = fitted_defaults.fit(given, None, data, data, here)
    shown = _defaults()
    wrong = {}
    for name, value in dotted(to_plain(made)).items():
        text = shown.get(name)
        if text is None or "fitted" in text or name in dotted(given) or name in ("train.precision", "data.workers"):
            continue
        if weights == "detector" and name.startswith("model."):
            continue  # those of the checkpoint
        scratch, _, finetuned = text.removesuffix(" to fine-tune a detector").partition(", or ")
        if options._shown(value) != (finetuned if weights == "detector" and finetuned else scratch):
            wrong[name] = (text, value)
    assert wrong == {}
    assert len(shown) > 60


def _defaults() -> dict[str, str]:
    """The default of each setting as the help of train has it."""
    found = {}
    for argument in app["train"].assemble_argument_collection(parse_docstring=True):
        names = [name.removeprefix("--").replace("-", "_") for name in argument.names]
        text = argument.parameter.help or ""
        if "[default: " in text:
            found |= {name: text.rpartition("[default: ")[2].rstrip("]") for name in names if "." in name}
    return found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell):
    script = app.generate_completion(shell=shell)
    for word in (*NAMES, "loss.gamma", "budget", "help-all"):
        assert word in script


def test_completion_in_bash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # its .bashrc gets a line
    script = tmp_path / "completion"
    assert main(["--install-completion", "--shell", "bash", "--output", str(script)]) == 0
    typed = (
        f"source {script}\n"
        'try() { COMP_WORDS=(retinanet "$@"); COMP_CWORD=$#; COMPREPLY=(); _retinanet; echo ${COMPREPLY[@]}; }\n'
        "try tra; try train --bud; try predict --overw"
    )
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["train", "--budget", "--overwrite"]
    assert str(script) in (tmp_path / ".bashrc").read_text()
