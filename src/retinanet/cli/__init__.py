"""The command line: one function for each verb. Heavy imports are inside these functions, so that help is fast.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
An error is one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError

from retinanet.cli import familiar, help_pages
from retinanet.cli.bench_command import bench
from retinanet.cli.convert_command import convert
from retinanet.cli.data_command import data
from retinanet.cli.demo_command import demo
from retinanet.cli.evaluate_command import evaluate
from retinanet.cli.export_command import export
from retinanet.cli.options import plain_json
from retinanet.cli.paper_command import paper
from retinanet.cli.predict_command import predict
from retinanet.cli.push_command import push
from retinanet.cli.serve_command import serve
from retinanet.cli.shared_options import OPTIONS
from retinanet.cli.train_command import train
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.printable import printable
from retinanet.common.version import __version__
from retinanet.terminal.console import rank

app = App(
    name="retinanet",
    help="Train an object detector (RetinaNet) on your own labelled images, evaluate it, and use it.",
    version=__version__,
    help_flags=("--help", "-h", "--help-all"),
    help_format="plaintext",
    group_parameters=OPTIONS,
    suppress_keyboard_interrupt=False,  # main reports how to go on
)
VERBS: tuple[Callable[..., None], ...] = (
    *(demo, data, train, evaluate, predict),
    *(convert, export, serve, push, bench, paper),
)
for position, function in enumerate(VERBS):
    app.command(function, sort_key=position)
app.register_install_completion_command(help="Install the completion of commands and options by the Tab key.")
ORDER = {
    "train": (*(f"--{name}" for name in ("budget", "epochs", "weights", "size", "batch-size", "device", "val")),),
}
"""Options that stand first in the help of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        print(help_pages.START.format(about=f"retinanet {__version__}. {app.help}"))
        return 0
    verb = ""
    try:
        arguments = familiar.translated(plain_json(arguments), [f.__name__ for f in VERBS], _options)
        verb = next((a for a in arguments if not a.startswith("-")), "")
        _set_help(verb, "--help-all" in arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        return 0
    except CycloptsError as error:
        caught: Exception = error
        text = str(error).strip().replace("Unused Tokens: ", "too many arguments: ")
        line, code = f"{text} See: retinanet {verb + ' ' if verb in app else ''}--help", 2
    except (RequestError, WorkError) as error:
        caught = error
        line, code = str(error), 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt as error:
        if rank() == 0:
            print(printable(f"stopped{f'; {error}' if str(error) else ''}"), file=sys.stderr)
        return getattr(error, "code", 130)
    except BrokenPipeError:
        # The reader of our output (head, less) has ended. Python would report that again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        caught = error
        line, code = f"unexpected {type(error).__name__}: {first_line(error)} (--debug shows where)", 1
    if "--debug" in arguments:
        import traceback

        for text in traceback.format_exception(caught):
            print(*map(printable, text.splitlines()), sep="\n", file=sys.stderr)
    if rank() == 0 or code != 2:  # a wrong request is wrong in all processes, so only one reports it
        who = f"process {rank()}: " if rank() else ""
        print(printable(f"error: {who}{' '.join(line.split())}"), file=sys.stderr)
    return code


def _options(verb: str) -> set[str]:
    """The names of a command's options."""
    return {name for argument in app[verb].assemble_argument_collection() if argument.show for name in argument.names}


def _set_help(verb: str, everything: bool) -> None:
    """Prepare the help page of a command, or of all commands."""
    function = {f.__name__: f for f in VERBS}.get(verb)
    app.help_formatter = help_pages.HelpPage(verb if function else "", function, ORDER.get(verb, ()), everything)
    more = "" if everything else f"All options (--json, --quiet, ...), in full: retinanet {verb} --help-all"
    app.help_epilogue = more if function else help_pages.ABOUT_ALL
