"""The command line: one short function a verb; what is heavy is imported inside the verb.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 stopped with Ctrl-C. An error is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from retinanet import __version__, recipe
from retinanet.cli.options import Common, given, plain_json
from retinanet.config import Settings
from retinanet.errors import RequestError, WorkError

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)

Precision = Literal["auto", "fp32", "bf16", "fp16"]

app = App(
    name="retinanet",
    help="RetinaNet: train a detector on your own labelled pictures, measure it, find objects with it.",
    version=__version__,
    help_format="markdown",
)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with a line that says how to go on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(plain_json(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        return 0
    except CycloptsError as error:
        verb = next((a for a in arguments if not a.startswith("-")), "")
        line, code = f"{str(error).strip()} See: retinanet {verb + ' ' if verb in app else ''}--help", 2
    except (RequestError, WorkError) as error:
        line, code = str(error), 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt as error:
        print(f"stopped{f'; {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        line, code = f"unexpected {type(error).__name__}: {reason} (--debug shows where)", 1
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    print("error: " + " ".join(line.split()), file=sys.stderr)
    return code
