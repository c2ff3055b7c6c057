"""A Hugging Face hub on this machine: as much of its HTTP interface as creating, committing and downloading needs.

Repositories are {path: bytes} by commit, in memory. Files of the suffixes in LARGE go through the large-file protocol.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = ("engine.json", ".onnx", ".data", ".safetensors", ".plan")
COMMIT = "X-Repo-Commit"


class Hub:
    """What the server holds."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, str]] = {}  # branch -> commit
        self.commits: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.refuse = self.full = False
        self.served: list[str] = []

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Put `files` on a branch; returns the commit."""
        commit = hashlib.sha1(json.dumps([repo, len(self.commits)]).encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = files
        self.repos.setdefault(repo, {})[branch] = commit
        return commit

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        """Files of a branch or commit."""
        commit = self.repos[repo].get(revision, revision)
        return self.commits.get(commit)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""

    def answer(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code: str) -> None:
        self.answer(404, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_any(self) -> None:
        body, path = self.body(), unquote(urlsplit(self.path).path)
        if self.hub.refuse:
            self.answer(403, {"error": "Forbidden"})
            return
        for method, pattern, act in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                act(self, body, **match.groupdict())
                return
        raise AssertionError(f"the stand-in knows no {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if repo in self.hub.repos:
            self.answer(409, {"error": "You already created this model repo", "url": self.url(repo)})
            return
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        self.hub.commit(repo, "main", {".gitattributes": b""})
        self.answer(200, {"url": self.url(repo), "name": repo})

    def url(self, path: str) -> str:
        return f"http://{self.headers['Host']}/{path}"

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        if repo not in self.hub.repos:
            self.missing("RepoNotFound")
        elif self.hub.files(repo, revision) is None:
            self.missing("RevisionNotFound")
        else:
            commit = self.hub.repos[repo].get(revision, revision)
            files = [{"rfilename": name} for name in self.hub.commits[commit]]
            self.answer(200, {"id": repo, "sha": commit, "siblings": files, "private": repo in self.hub.private})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        files = self.hub.files(repo, revision) or {}
        self.answer(200, [_entry(name, content) for name, content in files.items()])

    def branch(self, body: bytes, repo: str, branch: str) -> None:
        known = branch in self.hub.repos[repo]
        self.hub.repos[repo].setdefault(branch, self.hub.repos[repo]["main"])
        self.answer(409 if known else 200, {"error": "Reference already exists"} if known else {})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        files = [f["path"] for f in json.loads(body)["files"]]
        modes = [{"path": p, "uploadMode": "lfs" if p.endswith(LARGE) else "regular"} for p in files]
        self.answer(200, {"files": [mode | {"shouldIgnore": False} for mode in modes]})

    def batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**o, "actions": {"upload": {"href": self.url(f"objects/{o['oid']}"), "header": {}}}}
            for o in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        if self.hub.full:
            self.answer(403, {"error": "no space left for you"})
            return
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.answer(200, {})

    def add_commit(self, body: bytes, repo: str, revision: str) -> None:
        files = dict(self.hub.files(repo, revision) or {})
        for line in body.splitlines():
            kind, value = (json.loads(line)[key] for key in ("key", "value"))
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        commit = self.hub.commit(repo, revision, files)
        self.answer(200, {"commitUrl": self.url(f"{repo}/commit/{commit}"), "commitOid": commit, "hookOutput": ""})

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        if repo not in self.hub.repos:
            self.missing("RepoNotFound")
            return
        content = (self.hub.files(repo, revision) or {}).get(name)
        if content is None:
            self.missing("EntryNotFound")
            return
        if self.command == "GET":
            self.hub.served.append(name)
        headers = {COMMIT: self.hub.repos[repo].get(revision, revision), "ETag": f'"{_entry(name, content)["oid"]}"'}
        self.answer(200, content, headers)


def _entry(name: str, content: bytes) -> dict[str, object]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


REPO = r"(?P<repo>[^/]+/[^/]+)"
MODEL = rf"/api/models/{REPO}"
ROUTES = (
    (("POST",), "/api/repos/create", Handler.create),
    (("GET",), MODEL, Handler.info),
    (("GET",), rf"{MODEL}/revision/(?P<revision>[^/]+)", Handler.info),
    (("GET",), rf"{MODEL}/tree/(?P<revision>[^/]+)", Handler.tree),
    (("POST",), rf"{MODEL}/branch/(?P<branch>.+)", Handler.branch),
    (("POST",), rf"{MODEL}/preupload/(?P<revision>.+)", Handler.preupload),
    (("POST",), rf"{MODEL}/commit/(?P<revision>.+)", Handler.add_commit),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), "/objects/(?P<oid>[0-9a-f]+)", Handler.put),
    (("GET", "HEAD"), rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", Handler.resolve),
)


@contextmanager
def serving() -> Iterator[tuple[Hub, str]]:
    """The hub and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
