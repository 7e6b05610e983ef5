"""The network as a program of PyTorch's own export format (.pt2), with settings and classes in the archive.

``torch.export.load`` is no reader for files from strangers: it unpickles tensors and example inputs where an archive
says so, evaluates text as formulas, and calls whatever function of PyTorch a node names. So an archive is looked
through before it is given to it, and only what our own exports hold is let in: plain tensors, no example inputs,
formulas of sizes, and operators that calculate.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet import __version__
from retinanet.config import ModelSettings, SettingsError, from_plain, to_plain
from retinanet.errors import RequestError, WorkError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from retinanet.detector import Detector

FORMAT = "retinanet-torch-1"
ABOUT = "retinanet.json"
"""In the archive, as an extra file."""
TARGET = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|and_)|"
    r"torch\.sym_(max|min|int|float|not)|math\.(floor|ceil)"
)
"""Functions that a node may call; what calculates has no effect beyond its result."""
SYMBOL = re.compile(r"Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)")
NUMBERS = re.compile(r"(Add|Mul|Pow|Integer|FloorDiv|CleanDiv|CeilDiv|PythonMod|Mod|Max|Min|s\d+|[\d\s+\-*/(),])*")
"""What formulas of sizes consist of, when their symbols are taken out."""
SPECS = {"builtins.tuple", "builtins.list", "builtins.dict"}
"""Containers of a program's inputs and outputs; for others Python modules would be imported."""
FILE = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/model\.json|extra/retinanet\.json|"
    r"data/weights/(model_weights_config\.json|weight_\d+)|data/constants/(model_constants_config\.json|tensor_\d+)|"
    r"data/sample_inputs/model\.pt"
)
"""The files of our archives; others may hold pickles or machine code."""


def write(detector: Detector, place: Path, on_progress: Callable[[str], None] | None = None) -> None:
    """Write the network of ``detector`` for pictures of any number and any size that is a multiple of 32.

    Raises:
        WorkError: the network does something that cannot be exported.
    """
    import torch

    from retinanet.deploy.onnx_export import EXAMPLE, Flat, dynamic_shapes

    say = on_progress or (lambda text: None)
    about = {
        "format": FORMAT,
        "version": __version__,
        "settings": to_plain(detector.settings),
        "classes": list(detector.class_names),
        "extra": detector.about,
    }
    say("tracing the network")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                Flat(detector.model), (torch.zeros(EXAMPLE),), dynamic_shapes=dynamic_shapes()
            )
    except Exception as error:  # a backbone may do anything
        name, reason = detector.settings.backbone.name, first_line(error)
        raise WorkError(f"{name} cannot be exported by torch.export: {reason}") from error
    program.example_inputs = None  # they would be a pickle
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where in which source file it was made
    say("writing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are views of each other
        torch.export.save(program, place, extra_files={ABOUT: json.dumps(about)})


def recognises(path: Path) -> bool:
    """Whether a file is such an archive, by its name and by being one at all."""
    return path.suffix.lower() == ".pt2" and zipfile.is_zipfile(path)


def load_torch(path: str | Path, device: str | torch.device | None = None) -> Detector:
    """The detector in a file that ``retinanet export --format torch`` made; it runs on the processor.

    Raises:
        RequestError: the file is missing or no such file, or holds what could do more than calculate.
    """
    import torch

    from retinanet.deploy.network import ExportedNetwork
    from retinanet.detector import Detector

    path = Path(path)
    if device is not None and torch.device(device).type != "cpu":
        raise RequestError(f"{path} runs on the processor: leave out --device {device}, or use the checkpoint")
    if not path.is_file():
        raise RequestError(f"there is no file {path}")
    about = look_through(path)
    try:
        settings = from_plain(ModelSettings, about["settings"])
        names, extra = tuple(about["classes"]), dict(about["extra"])
        network = torch.export.load(path).module()
    except (KeyError, TypeError, SettingsError) as error:
        raise RequestError(f"{path} cannot be read: its metadata is damaged ({error})") from error
    except Exception as error:  # of another version of PyTorch, for example
        raise RequestError(f"{path} cannot be read by PyTorch {torch.__version__}: {first_line(error)}") from error

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = network(images)
        return outputs

    exported: Any = ExportedNetwork(settings, len(names), run)
    return Detector(exported, names, about=extra, computes="fp32, as it was exported")


def look_through(path: Path) -> dict[str, Any]:
    """What our archive says of itself, after everything in it is known to be harmless.

    Raises:
        RequestError: it is not of ours, or there is more in it than our exports have.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name.partition("/")[2]: name for name in archive.namelist()}  # below a folder of any name
            about = files.get(f"extra/{ABOUT}")
            known = json.loads(archive.read(about)) if about else {}
            if not isinstance(known, dict) or known.get("format") != FORMAT:
                raise RequestError(f"{path} is not a network that retinanet export --format torch made")
            for bad in _unknown(archive, files):
                raise RequestError(f"{path} is refused, for loading it could run code: it has {bad}")
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise RequestError(f"{path} cannot be read as a PyTorch program: {error}") from error
    return known


def _unknown(archive: zipfile.ZipFile, files: dict[str, str]) -> Iterator[str]:
    """What is in an archive that our own exports do not have."""
    if len(files) != len(archive.namelist()):
        yield "two files of one name"
    for file, name in files.items():
        if not FILE.fullmatch(file):
            yield f"the file {file}"
        elif file.startswith("models/"):
            yield from _unknown_in_model(json.loads(archive.read(name)))
        elif file.startswith("data/sample_inputs/") and archive.getinfo(name).file_size:
            yield "example inputs, which are a pickle"
        elif file.endswith("_config.json"):
            for tensor, entry in json.loads(archive.read(name))["config"].items():
                if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    yield f"the pickle {tensor}"


def _unknown_in_model(value: Any) -> Iterator[str]:
    """Calls and formulas of a program, at any depth, that are more than arithmetic."""
    if isinstance(value, list):
        for item in value:
            yield from _unknown_in_model(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "target" and "inputs" in value and not TARGET.fullmatch(str(item)):
                yield f"a call of {item}"
            elif key == "expr_str" and not NUMBERS.fullmatch(SYMBOL.sub("", str(item))):
                yield f"the formula {str(item)[:40]!r}"
            elif key in ("in_spec", "out_spec") and not SPECS.issuperset(re.findall(r"\w+\.\w+", str(item))):
                yield f"inputs or outputs in {str(item)[:40]!r}"
            else:
                yield from _unknown_in_model(item)
