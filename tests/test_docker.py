"""The Dockerfile, read rather than built: what it installs, as whom it runs, and that its shell and Python work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from retinanet.cli import app

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"av", "opencv", "ffmpeg", "supervision", "trackers", "moviepy", "decord", "torchcodec"}
"""Parts of the names of packages that hold GPL codecs, or need one that does."""


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each, of all stages."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    every = instructions()
    return every[max(i for i, (name, _) in enumerate(every) if name == "FROM") :]


def one(name: str) -> str:
    (found,) = [arguments for each, arguments in last_stage() if each == name]
    return found


def test_it_runs_as_a_normal_user() -> None:
    stage = last_stage()
    assert one("USER") == "retinanet"
    assert any(name == "RUN" and re.search(r"useradd .*--uid [1-9]\d* retinanet", rest) for name, rest in stage)
    names = [name for name, _ in stage]
    assert "RUN" not in names[names.index("USER") :]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_what_it_starts_is_a_command_of_ours() -> None:
    entry, command = json.loads(one("ENTRYPOINT")), json.loads(one("CMD"))
    assert (entry, command[0]) == (["retinanet"], "serve")
    app.parse_args(command, exit_on_error=False, print_error=False)
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert "--no-token" in command  # without it, or a token, that host is refused
    port = command[command.index("--port") + 1]
    assert one("EXPOSE") == port
    assert f"('127.0.0.1', {port}" in one("HEALTHCHECK")


def test_nothing_that_it_installs_brings_a_gpl_codec() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installs = [rest for name, rest in instructions() if name == "RUN" and " install " in rest]
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', " ".join(installs))
    assert extras == "onnx,serve"
    wanted = [*project["dependencies"]]
    for extra in extras.split(","):
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[\s\[<>=!~;]", line.lower())[0] for line in wanted}
    assert {"torch", "onnxruntime", "fastapi"} <= names
    assert not {name for name in names if FORBIDDEN & set(re.split(r"[-_.]", name))}
    assert not re.search(r"apt|build-essential|apk", " ".join(rest for _, rest in instructions()))


def test_no_index_is_written_down() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "://" not in text
    arguments = [rest for name, rest in instructions() if name == "ARG"]
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "TORCH_INDEX_URL"} <= set(arguments)  # without a default


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)


@pytest.mark.parametrize("planted", [None, "lib/libx264.so.164", "v/site-packages/av/__init__.py", "bin/gcc"])
def test_its_own_check_finds_what_must_not_be_there(tmp_path: Path, planted: str | None) -> None:
    (step,) = [rest for name, rest in last_stage() if name == "RUN" and "libx264" in rest]
    assert "find / -xdev" in step
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libjpeg.so").touch()
    (tmp_path / "share" / "gcc" / "python").mkdir(parents=True)  # of Debian's libstdc++, which has no compiler
    if planted:
        (tmp_path / planted).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / planted).touch()
    here = step.replace("find / -xdev", f"find {shlex.quote(str(tmp_path))} -xdev")
    done = subprocess.run(["sh", "-c", here], capture_output=True, text=True)
    assert done.returncode == (1 if planted else 0)
    assert ("must not be in the image" in done.stderr) == bool(planted)


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server whose /health has this status, and whose other pages are missing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_health_check() -> None:
    _, _, command = one("HEALTHCHECK").partition("CMD ")
    program, *arguments = json.loads(command)
    assert program == "python"

    def healthy(port: int) -> bool:
        return not subprocess.run(
            [sys.executable, *(a.replace("8000", str(port)) for a in arguments)], capture_output=True
        ).returncode

    with answering(200) as port:
        assert healthy(port)
    assert not healthy(port)  # nobody listens any more
    with answering(503) as port:
        assert not healthy(port)
