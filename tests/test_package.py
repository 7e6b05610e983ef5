"""What users install: the wheel, and what importing it costs."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import retinanet

ROOT = Path(__file__).resolve().parents[1]


def fresh(code: str) -> str:
    """Output of ``code`` in a new interpreter."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.strip().splitlines()[-1])


def test_the_wheel_holds_every_module_every_recipe_and_the_mark_of_types(wheel):
    inside = set(wheel.namelist())
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert modules <= inside
    assert {f"retinanet/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")} <= inside
    assert "retinanet/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks", "recipes"))]


def test_one_version(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert f"\nVersion: {retinanet.__version__}\n" in wheel.read(metadata).decode()
    assert f"\nversion: {retinanet.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_recipes_are_found_from_the_wheel(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from retinanet.config import recipes\n"
        "print(recipes.find('digits')); print(*recipes.recipes())"
    )
    path, names = fresh(code).splitlines()
    assert Path(path) == tmp_path / "retinanet" / "recipes" / "digits.yaml"
    assert names.split() == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_importing_the_package_imports_nothing_heavy():
    heavy = fresh(
        "import sys, retinanet, retinanet.config.settings, retinanet.config.recipes\n"
        "print(*({'torch', 'torchvision', 'timm', 'lightning', 'matplotlib', 'PIL', 'yaml'} & set(sys.modules)))"
    )
    assert heavy == ""


def test_loading_a_detector_imports_neither_lightning_nor_matplotlib():
    heavy = fresh(
        "import sys, retinanet; retinanet.load, retinanet.Detections\n"
        "print(*({'torchvision', 'timm', 'lightning', 'matplotlib', 'faster_coco_eval'} & set(sys.modules)))"
    )
    assert heavy == ""


@pytest.mark.parametrize("name", retinanet.__all__)
def test_public_names_are_there(name):
    assert getattr(retinanet, name) is not None
    assert name in dir(retinanet)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'retinanet' has no attribute 'lode'"):
        retinanet.lode  # noqa: B018


def test_the_former_module_of_training_names_the_new_one():
    with pytest.raises(ImportError, match=r"retinanet\.training\.trainer"):
        importlib.import_module("retinanet.training.loop")
