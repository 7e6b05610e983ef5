"""What works on Linux alone is used where the system is known, and text files have an encoding.

Windows reads and writes text in an encoding of the country, and lacks a part of Python's os and signal.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "src").rglob("*.py"))

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        *(
            "O_CLOEXEC",
            "O_DIRECTORY",
            "O_NOFOLLOW",
            "O_NONBLOCK",
            "O_SYNC",
            "WNOHANG",
            "chown",
            "chroot",
            "fchmod",
            "fchown",
        ),
        *(
            "fork",
            "forkpty",
            "getegid",
            "geteuid",
            "getgid",
            "getloadavg",
            "getpgid",
            "getpgrp",
            "getpriority",
            "getsid",
        ),
        *(
            "getuid",
            "getxattr",
            "killpg",
            "mkfifo",
            "mknod",
            "nice",
            "openpty",
            "posix_fadvise",
            "posix_spawn",
            "pread",
        ),
        *("pwrite", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid", "setpriority"),
        *("setsid", "sysconf", "uname", "wait", "wait4", "waitid"),
    },
    "signal": {
        *("ITIMER_REAL", "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGTSTP", "SIGUSR1", "SIGUSR2", "alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask"),
        *("setitimer", "sigtimedwait", "sigwait"),
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "socketpair"},
}
"""Not on Windows; sched_getaffinity and some others not on macOS either."""
ANYWHERE = {"add_signal_handler", "remove_signal_handler"}
"""Methods that asyncio's loops have on POSIX alone."""


OTHERS = {"Image", "av", "opener", "os", "self", "tarfile", "webbrowser", "zipfile"}
"""Whose ``open`` opens no text file."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def has_encoding(call: ast.Call) -> bool:
    """Whether a call that opens a file names an encoding, or needs none."""
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return True
    if ast.unparse(call.func) in ("io.TextIOWrapper", "TextIOWrapper") and len(call.args) > 1:
        return True
    texts = [value.value for value in call.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    modes = [str(k.value.value) for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
    return any("b" in mode and len(mode) <= 3 for mode in texts + modes)


def text_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that read or write text without an encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or has_encoding(node):
            continue
        if isinstance(node.func, ast.Attribute):
            opens = node.func.attr == "open" and ast.unparse(node.func.value) not in OTHERS
            if opens or node.func.attr in ("read_text", "write_text", "fdopen", "TextIOWrapper"):
                yield node
        elif isinstance(node.func, ast.Name) and node.func.id in ("open", "fdopen", "TextIOWrapper"):
            yield node


def posix_only(tree: ast.AST, guarded: bool = False) -> Iterator[ast.AST]:
    """Uses of what POSIX alone has, outside of a condition that names the system or asks whether it is there."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If | ast.IfExp):
            condition = ast.unparse(node.test)
            known = guarded or any(
                word in condition for word in ("sys.platform", "os.name", "hasattr(os", "hasattr(signal")
            )
            yield from posix_only(node, known)
            continue
        if not guarded:
            if isinstance(node, ast.Import) and POSIX_MODULES & {alias.name for alias in node.names}:
                yield node
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                if node.module in POSIX_MODULES or names & POSIX_NAMES.get(str(node.module), set()):
                    yield node
            if isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if node.attr in ANYWHERE or node.attr in POSIX_NAMES.get(owner, set()):
                    yield node
        yield from posix_only(node, guarded)


def test_every_text_file_has_an_encoding() -> None:
    wrong = [f"{where(path, call)}: {ast.unparse(call)}" for path in FILES for call in text_calls(parsed(path))]
    assert not wrong, "\n".join(wrong)


def test_what_posix_alone_has_is_guarded() -> None:
    wrong = [f"{where(path, node)}: {ast.unparse(node)}" for path in FILES for node in posix_only(parsed(path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        'open("a")',
        'open("a", "w")',
        'Path("a").read_text()',
        "path.write_text(text)",
        'path.open("r")',
    ],
)
def test_the_check_of_encodings_can_fail(line: str) -> None:
    assert list(text_calls(ast.parse(line)))
    assert not list(text_calls(ast.parse(line.replace(")", ', encoding="utf-8")').replace("(,", "("))))


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "from os import fork",
        "os.getuid()",
        "signal.signal(signal.SIGHUP, f)",
        "loop.add_signal_handler(1, f)",
    ],
)
def test_the_check_of_systems_can_fail(line: str) -> None:
    assert list(posix_only(ast.parse(line)))
    assert not list(posix_only(ast.parse(f'if sys.platform != "win32":\n    {line}')))


@pytest.mark.skipif(os.name != "posix", reason="compares with this system's own names")
def test_the_names_are_real() -> None:
    """A name that POSIX does not have would check nothing."""
    import signal
    import socket

    modules = {"os": os, "signal": signal, "socket": socket}
    assert not [name for module, names in POSIX_NAMES.items() for name in names if not hasattr(modules[module], name)]
