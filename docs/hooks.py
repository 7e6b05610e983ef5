"""What the site takes from the code while it is built, so that it cannot go stale.

A page asks for it by a comment of its own line:

    <!-- public names -->                  the names of `import retinanet`, by mkdocstrings
    <!-- modules: retinanet.package -->    the modules of a package, by mkdocstrings
    <!-- commands -->                      every command with its options, from the command line's own help
    <!-- familiar flags -->                flags and commands of other projects, and what they mean here
    <!-- recipes -->                       every recipe, with its file
    <!-- source: retinanet.module.name --> the source of a function or class; `head:` leaves out its body
"""

from __future__ import annotations

import ast
import logging
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import retinanet  # noqa: E402
from retinanet.cli import app, familiar, help_pages  # noqa: E402
from retinanet.cli.options import SECTIONS  # noqa: E402
from retinanet.config.recipes import recipes  # noqa: E402

log = logging.getLogger("mkdocs.hooks.retinanet")
SETTINGS_OF = "train"
"""The command whose help has all settings; the other commands link to it."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its comments replaced by what they ask for."""
    markdown = re.sub(r"^<!-- public names -->$", lambda _: public_names(), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- modules: ([\w.]+) -->$", lambda m: modules(m[1]), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- commands -->$", lambda _: commands(), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- familiar flags -->$", lambda _: familiar_flags(), markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^<!-- recipes -->$", lambda _: recipe_files(), markdown, flags=re.MULTILINE)
    return re.sub(
        r"^<!-- (source|head): ([\w.]+) -->$", lambda m: excerpt(m[2], m[1] == "head"), markdown, flags=re.MULTILINE
    )


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name functions with Sphinx's roles, which Markdown shows as they are: the name alone is enough."""
    return re.sub(r":(?:func|class|meth|mod|attr|data):<code>~?([^<]*)</code>", r"<code>\1</code>", html)


def public_names() -> str:
    """A directive for each name of the package: functions first, then classes."""
    names = sorted((name for name in retinanet.__all__ if not name.startswith("_")), key=lambda n: (n[0].isupper(), n))
    # The fields of the settings have a page of their own.
    extra = {"Settings": "\n    options:\n      members: false"}
    return "\n\n".join(f"::: retinanet.{name}{extra.get(name, '')}" for name in names)


def modules(package: str) -> str:
    """A directive for each module of a package, in alphabetical order."""
    folder = ROOT / "src" / Path(*package.split("."))
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    return "\n\n".join(f"::: {package}.{name}" for name in names)


def commands() -> str:
    """All commands as Markdown: a section each, in it a section for each group of settings."""
    app.help_format = "markdown"
    text = app.generate_docs(output_format="markdown", heading_level=1, flatten_commands=True)
    # A continued sentence is indented, which in a list would be a code block.
    text = re.sub(r"\n {2,}(?=\S)", " ", text)
    _, *verbs = re.split(r"^# retinanet (?=\w+$)", text, flags=re.MULTILINE)
    return "\n".join(_command(verb) for verb in verbs)


def _command(text: str) -> str:
    verb, _, body = text.partition("\n")
    own, *groups = re.split(rf"^\*\*((?:{'|'.join(SECTIONS)})(?:\.\w+)*)\*\*:$", body, flags=re.MULTILINE)
    examples = "\n".join(help_pages.examples(app[verb].default_command))
    parts = [f"### retinanet {verb} {{#{verb}}}\n\n```sh\n{examples}\n```\n{own}"]
    for name, options in zip(groups[::2], groups[1::2], strict=True):
        anchor = f"{SETTINGS_OF}-{name.replace('.', '-')}"
        if verb == SETTINGS_OF:
            parts.append(f"#### Settings: {name} {{#{anchor}}}\n{options}")
        else:
            parts.append(f"* `--{name}.…`: [the settings of `{name}`](#{anchor})\n")
    return "\n".join(parts)


def familiar_flags() -> str:
    """A table of the flags that work under another name, and the other names of commands."""
    rows = []
    for verb, flags in familiar.FLAGS.items():
        names: dict[str, list[str]] = {}
        for flag, target in flags.items():
            if target in (familiar.DATA, familiar.MODEL, familiar.SOURCE) or target.startswith("--"):
                names.setdefault(target, []).append(f"`--{flag}`")
        rows += [f"| {verb} | {', '.join(given)} | `{target}` |" for target, given in names.items()]
        if verb in familiar.FOLDERS:
            rows.append(f"| {verb} | `--name NAME`, `--project FOLDER` | `--output FOLDER/NAME` |")

    verbs = [f"`{name}` is `{verb}`" for name, verb in familiar.VERBS.items()]
    head = "| command | flag | here |\n|---|---|---|\n"
    return head + "\n".join(rows) + f"\n\nOther names of commands: {', '.join(verbs)}."


def recipe_files() -> str:
    """A section for each recipe: the file, whose first lines say what it is for."""
    parts = []
    for name in recipes():
        text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        parts.append(f'### {name}\n\n```yaml title="recipes/{name}.yaml"\n{text.rstrip()}\n```\n')
    return "\n".join(parts)


def excerpt(name: str, head: bool) -> str:
    """A function or class from the source, under the name of its file.

    Args:
        name: dotted, such as ``retinanet.ops.boxes.encode`` or ``retinanet.model.fpn.FeaturePyramid.forward``.
        head: the signature and the docstring alone.
    """
    path, names = ROOT / "src", name.split(".")
    while names and (path / names[0]).is_dir():
        path /= names.pop(0)
    path = path / f"{names.pop(0)}.py" if names and (path / f"{names[0]}.py").exists() else path / "__init__.py"
    source = path.read_text(encoding="utf-8")
    node: Any = ast.parse(source)
    for part in names:
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            log.warning("%s is not in %s", name, path.relative_to(ROOT))
            return ""
    last = node.body[0].end_lineno if head else node.end_lineno
    lines = source.splitlines()[node.lineno - 1 : last]
    text = "\n".join(line[node.col_offset :] for line in lines)
    return f'```python title="{path.relative_to(ROOT)}"\n{text}\n```'
