"""Image files: paths that stay below their root."""

import os
import re
from pathlib import Path

from .sample import DataError


class ImageFiles:
    """Image paths below one root, each looked up on disk once."""

    def __init__(self, root: str | None) -> None:
        self.root = None if root is None else Path(os.path.normpath(Path(root).absolute()))
        self.found: dict[str, str] = {}

    def path(self, name: str, image: str) -> str:
        """The file of `image`; DataError where it is a URL, lies outside the root or does not exist."""
        if image not in self.found:
            self.found[image] = str(self._locate(name, image))
        return self.found[image]

    def _locate(self, name: str, image: str) -> Path:
        if re.match(r"[A-Za-z][\w+.-]*:", image):
            raise DataError(f"{name}: image {image!r} is a URL; only files below image_root are read")
        if self.root is None:
            raise DataError(f"{name}: has an image, but its source has no image_root")
        # Lexical on purpose: links that the owner of the root made may lead elsewhere, a record's `..` may not.
        path = Path(os.path.normpath(self.root / image))
        if self.root not in path.parents:
            raise DataError(f"{name}: image {image!r} lies outside image_root {self.root}")
        if not path.is_file():
            raise DataError(f"{name}: no image file {path}")
        return path
