"""A hub on this machine, for the real client of the Hugging Face hub: just the requests that a push and a fetch make.

Large files go by git-lfs's "basic" transfer; the hub's newer storage (Xet) is left out, and the client told so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_test"


class Repository:
    def __init__(self, private: bool = False, gated: bool = False) -> None:
        self.private, self.gated = private, gated
        self.commits: list[dict[str, bytes]] = []
        self.ids: list[str] = []
        self.messages: list[str] = []

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        self.commits.append({**(self.commits[-1] if self.commits else {}), **files})
        self.messages.append(message)
        self.ids.append(hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest())
        return self.ids[-1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if not self.commits:
            return None
        if revision == "main":
            return self.ids[-1], self.commits[-1]
        return (revision, self.commits[self.ids.index(revision)]) if revision in self.ids else None


class HubServer:
    """``repositories`` by name; ``requests`` are those made, ``plain`` files that lie under a path of their own."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.plain: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[str] = []
        self.broken = 0  # answer everything with this status
        owner = self

        class Handler(_Handler):
            hub = owner

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        """From now on nobody listens."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early, as those do that refuse what they are sent, is no fault of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        kind = "application/octet-stream"
        if isinstance(body, dict):
            body, kind = json.dumps(body).encode(), "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.broken:
            return self.answer(self.hub.broken, {"error": "out of order"})
        if path in self.hub.plain:
            status, headers, content = self.hub.plain[path]
            return self.answer(status, content, **headers)
        parts = path.strip("/").split("/")
        if self.command in ("GET", "HEAD"):
            return self.read(parts)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if parts[0] == "lfs" and self.command == "PUT":
            self.hub.large[parts[1]] = body
            return self.answer(200)
        if not self.known():
            return self.refuse(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.answer(200, self.batch(json.loads(body)))
        name = "/".join(parts[2:4])
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if parts[4] == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        assert parts[4] == "commit", path
        files, message = {}, ""
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert entry["key"] == "lfsFile", entry
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = repository.commit(files, message)
        return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, wish: dict[str, Any]) -> None:
        name = f"{wish['organization']}/{wish['name']}"
        if wish["organization"] == "other":
            return self.refuse(403, "", "You don't have the rights to create a model under the namespace other")
        there = name in self.hub.repositories
        if not there:
            private = wish.get("visibility") == "private" or bool(wish.get("private"))
            self.hub.repositories[name] = Repository(private=private)
        return self.answer(409 if there else 200, {"url": f"{self.hub.url}/{name}", "name": name})

    def batch(self, wish: dict[str, Any]) -> dict[str, Any]:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}} for one in wish["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def read(self, parts: list[str]) -> None:
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name = "/".join(parts[:2])
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.known()):
            code = 404 if self.known() else 401
            return self.refuse(code, "RepoNotFound" if code == 404 else "", "Repository not found")
        revision = parts[3] if len(parts) > 3 else "main"
        found = repository.at(revision)
        if found is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, files = found
        if api:
            siblings = [{"rfilename": file} for file in sorted(files)]
            return self.answer(200, {"id": name, "sha": commit, "siblings": siblings, "private": repository.private})
        if repository.gated and not self.known():
            return self.refuse(401, "GatedRepo", "Access to this model is restricted.")
        file = "/".join(parts[4:])
        if file not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        etag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        return self.answer(200, files[file], ETag=etag, X_Repo_Commit=commit)
