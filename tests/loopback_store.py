"""What the Hub of `tests.loopback_hub` keeps in memory: repositories, large files, what it was asked."""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from typing import Any

LARGE = 4096  # bytes from which a file goes to the large files' store
FIRST = {".gitattributes": b"*.safetensors filter=lfs\n"}
Tree = dict[str, bytes]


@dataclass
class Repository:
    """Every commit's files, and the names of commits."""

    private: bool = True
    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: Tree) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(tree)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = dict(tree), oid
        return oid

    def find(self, revision: str) -> str | None:
        known = self.branches | self.tags | {oid: oid for oid in self.commits}
        return known.get(revision)


@dataclass
class Hub:
    """What the server knows; a test reads it, and sets what goes wrong."""

    token: str
    owner: str = "owner"
    repositories: dict[str, Repository] = field(default_factory=dict)  # "models/owner/name"
    store: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    received: list[tuple[str, int]] = field(default_factory=list)  # SHA-256 and size of each large file, as it came
    faults: list[tuple[str, int]] = field(default_factory=list)  # once each: "METHOD pattern", status (0: hang up)
    stalled: threading.Event = field(default_factory=threading.Event)  # set when half of a file came that hangs
    stall: str | None = None  # SHA-256 of the file whose upload hangs halfway
    answers_lost: int = 0  # of so many commits that are made
    url: str = ""

    def tree(self, name: str, revision: str = "main") -> Tree:
        repository = self.repositories[name]
        return repository.commits[repository.find(revision) or "absent"]

    def fault(self, request: str) -> int | None:
        for number, (pattern, status) in enumerate(self.faults):
            if re.search(pattern, request):
                del self.faults[number]
                return status
        return None


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sibling(path: str, content: bytes) -> dict[str, Any]:
    known: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
    if len(content) >= LARGE:  # of a large file git holds a pointer, and its hash
        known["blobId"] = git_hash(hashlib.sha256(content).hexdigest().encode())
        known["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
    return known
