"""A Hub of the standard library on 127.0.0.1: as much of it as creating, uploading to and loading a repository asks.

It keeps what it got in memory and writes down each request. `huggingface_hub` reads where the Hub is when it is
imported, so whoever talks to this does so in a process of its own, with `environment(...)`.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.loopback_store import FIRST, LARGE, Hub, Repository, git_hash, sibling


class Handler(BaseHTTPRequestHandler):
    """One request. Routes are methods' names and patterns of paths, in ROUTES."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append((self.command, path))
        status = self.hub.fault(request)
        if status is not None:
            self._fail(status)
            return
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                getattr(self, name)(*match.groups())
                return
        self.answer(404, {"error": f"no such page: {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815 - http.server's names

    def _fail(self, status: int) -> None:
        if status == 0:
            self.rfile.read(min(int(self.headers.get("Content-Length", 0)) // 2, LARGE))
            self.close_connection = True
            self.connection.close()
        else:
            self.body()
            self.answer(status, {"error": "out of order"})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, status: int, data: Any = None, code: str | None = None, **headers: str) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if not isinstance(data, bytes):
            self.send_header("Content-Type", "application/json")
        if code is not None:
            self.send_header("X-Error-Code", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def known(self) -> bool:
        """Answers a login that is none, and repeats it, as a careless server would."""
        login = self.headers.get("Authorization", "")
        if login == f"Bearer {self.hub.token}":
            return True
        message = "Invalid credentials in Authorization header"
        self.answer(401, {"error": f"{message}: {login}"}, X_Error_Message=f"{message}: {login}")
        return False

    def repository(self, name: str, write: bool = False) -> Repository | None:
        if not self.known():
            return None
        repository = self.hub.repositories.get(name)
        mine = name.split("/")[1] == self.hub.owner
        if repository is None or (repository.private and not mine):
            self.answer(404, {"error": "Repository not found"}, code="RepoNotFound")
            return None
        if write and not mine:
            login = self.headers["Authorization"]
            self.answer(403, {"error": f"no rights to write for {login}"}, X_Error_Message=f"no rights for {login}")
            return None
        return repository

    def commit_of(self, name: str, revision: str) -> str | None:
        repository = self.repository(name)
        commit = None if repository is None else repository.find(revision)
        if repository is not None and commit is None:
            self.answer(404, {"error": "Invalid rev id"}, code="RevisionNotFound")
        return commit

    # ---- what is asked

    def create(self) -> None:
        asked = json.loads(self.body())
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        if not self.known():
            return
        if asked["organization"] != self.hub.owner:
            self.answer(403, {"error": f"You don't have the rights to create under {asked['organization']}"})
        elif name in self.hub.repositories:
            self.answer(409, {"error": "You already created this repo", "url": f"{self.hub.url}/{name}"})
        else:
            self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
            self.hub.repositories[name].commit("main", FIRST)
            self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def info(self, name: str, revision: str | None) -> None:
        commit = self.commit_of(name, revision or "main")
        if commit is not None:
            repository = self.hub.repositories[name]
            identity = {"id": name.partition("/")[2], "sha": commit, "private": repository.private}
            siblings = [sibling(path, content) for path, content in repository.commits[commit].items()]
            self.answer(200, {**identity, "siblings": siblings, "tags": []})

    def refs(self, name: str) -> None:
        repository = self.repository(name)
        if repository is not None:
            both = {"branches": repository.branches, "tags": repository.tags, "converts": {}}
            listed = {
                kind: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in refs.items()]
                for kind, refs in both.items()
            }
            self.answer(200, listed)

    def tree(self, name: str, revision: str, folder: str | None) -> None:
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        tree = self.hub.repositories[name].commits[commit]
        files = {path: x for path, x in tree.items() if path.startswith(f"{folder}/" if folder else "")}
        if files:
            listed = [{"type": "file", "path": path, "size": len(x), "oid": git_hash(x)} for path, x in files.items()]
            self.answer(200, listed)
        else:
            self.answer(404, {"error": "Entry not found"}, code="EntryNotFound")

    def preupload(self, name: str, revision: str) -> None:
        asked = json.loads(self.body())
        if self.repository(name, write=True) is None or self.commit_of(name, revision) is None:
            return
        modes = {file["path"]: "lfs" if file["size"] >= LARGE else "regular" for file in asked["files"]}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self.answer(200, {"files": files})

    def batch(self, name: str) -> None:
        asked = json.loads(self.body())
        name = name if name.startswith("datasets/") else f"models/{name}"
        if self.repository(name, write=True) is None:
            return
        objects = []
        for item in asked["objects"]:
            upload = {"href": f"{self.hub.url}/store/{item['oid']}?signature=secret"}
            verify = {"href": f"{self.hub.url}/verify"}
            actions = {} if item["oid"] in self.hub.store else {"actions": {"upload": upload, "verify": verify}}
            objects.append({**item, **actions})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if self.hub.stall == oid:
            self.rfile.read(LARGE // 2)
            self.hub.stalled.set()
            self.rfile.read()  # until the other side is gone
            self.close_connection = True
            return
        content = self.body()
        self.hub.received.append((oid, len(content)))
        if hashlib.sha256(content).hexdigest() == oid:
            self.hub.store[oid] = content
            self.answer(200, b"")
        else:
            self.answer(400, {"error": "another content"})

    def verify(self) -> None:
        asked = json.loads(self.body())
        self.answer(200 if asked["oid"] in self.hub.store else 404, {})

    def commit(self, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body().splitlines()]
        repository = self.repository(name, write=True)
        parent = self.commit_of(name, revision) if repository is not None else None
        if repository is None or parent is None:
            return
        tree = dict(repository.commits[parent])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.hub.store[value["oid"]]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        oid = repository.commit(revision, tree)
        if self.hub.answers_lost:
            self.hub.answers_lost -= 1
            self.close_connection = True
            self.connection.close()
            return
        self.answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def branch(self, name: str, branch: str) -> None:
        self.body()
        repository = self.repository(name, write=True)
        if repository is not None and branch in repository.branches:
            self.answer(409, {"error": "Reference already exists"})
        elif repository is not None:
            repository.branches[branch] = repository.branches["main"]
            self.answer(200, {})

    def tag(self, name: str, revision: str) -> None:
        asked = json.loads(self.body())
        repository = self.repository(name, write=True)
        commit = None if repository is None else self.commit_of(name, revision)
        if repository is not None and commit is not None:
            if asked["tag"] in repository.tags:
                self.answer(409, {"error": "Tag already exists"})
                return
            repository.tags[asked["tag"]] = commit
            self.answer(200, {})

    def yaml(self) -> None:
        self.body()
        self.answer(200, {"errors": [], "warnings": []})

    def resolve(self, name: str, revision: str, path: str) -> None:
        name = name if name.startswith("datasets/") else f"models/{name}"
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        content = self.hub.repositories[name].commits[commit].get(path)
        if content is None:
            self.answer(404, {"error": "Entry not found"}, code="EntryNotFound")
        else:
            self.answer(200, content, X_Repo_Commit=commit, ETag=f'"{git_hash(content)}"')


KIND = "(?:models|datasets)"
ROUTES = [
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "yaml"),
    ("GET", f"/api/({KIND}/[^/]+/[^/]+)(?:/revision/(.+))?", "info"),
    ("GET", f"/api/({KIND}/[^/]+/[^/]+)/refs", "refs"),
    ("GET", f"/api/({KIND}/[^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", "tree"),
    ("POST", f"/api/({KIND}/[^/]+/[^/]+)/preupload/(.+)", "preupload"),
    ("POST", f"/api/({KIND}/[^/]+/[^/]+)/commit/(.+)", "commit"),
    ("POST", f"/api/({KIND}/[^/]+/[^/]+)/branch/(.+)", "branch"),
    ("POST", f"/api/({KIND}/[^/]+/[^/]+)/tag/(.+)", "tag"),
    ("POST", r"/(.+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", "/store/([0-9a-f]{64})", "put"),
    ("POST", "/verify", "verify"),
    ("GET HEAD", "/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
]


@contextmanager
def loopback_hub(token: str) -> Iterator[Hub]:
    """A running server, which knows this token as the owner's."""
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub: Hub, home: Path, token: str | None) -> dict[str, str]:
    """Of a process that takes `hub` for the Hub and is logged in, or not, as `hf auth login` leaves it in `home`."""
    home.mkdir(exist_ok=True)
    if token is not None:
        (home / "token").write_text(token)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {**kept, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
