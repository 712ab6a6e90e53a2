"""Image files: paths that stay below their root, and what a file's header tells."""

import os
import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ExifTags, Image

from .question import RecordError
from .sample import DataError

# What Pillow raises on damaged files, besides its own subclasses of OSError.
IMAGE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, OverflowError,
    Image.DecompressionBombError,
)  # fmt: skip
MAX_IMAGE_PIXELS = 89_478_485  # Pillow's own warning limit
EXTENSIONS = {"JPEG": {".jpg", ".jpeg"}, "MPO": {".jpg", ".jpeg"}, "PNG": {".png"}, "GIF": {".gif"}}
CACHED_FILES = 100_000


class ImageFiles:
    """Image paths below one root, each looked up on disk once."""

    def __init__(self, root: str | None) -> None:
        self.root = None if root is None else Path(os.path.normpath(Path(root).absolute()))
        self.found: dict[str, str] = {}

    def path(self, name: str, image: str) -> str:
        """The file of `image`; DataError where it is a URL, lies outside the root or does not exist."""
        if image not in self.found:
            try:
                self.found[image] = str(existing_image(self.root, image))
            except RecordError as error:
                raise DataError(f"{name}: {error}") from None
        return self.found[image]


def image_path(root: Path | None, image: str) -> Path:
    """The path of `image`, which need not exist; RecordError where it is a URL, or would lie outside the root."""
    if re.match(r"[A-Za-z][\w+.-]*:", image):
        raise RecordError("url", f"image {image!r} is a URL; only files below image_root are read", image)
    if root is None:
        raise RecordError("no_root", "has an image, but its source has no image_root", image)
    # Lexical on purpose: links that the owner of the root made may lead elsewhere, a record's `..` may not.
    path = Path(os.path.normpath(root / image))
    if root not in path.parents or "\0" in image:
        raise RecordError("outside_root", f"image {image!r} lies outside image_root {root}", image)
    return path


def existing_image(root: Path | None, image: str) -> Path:
    """As `image_path`; RecordError also where there is no such file."""
    path = image_path(root, image)
    try:
        found = path.is_file()
    except OSError:  # a name longer than the file system allows
        found = False
    if not found:
        raise RecordError("no_image", f"no image file {path}", image)
    return path


@dataclass(frozen=True)
class ImageHeader:
    """Width and height as stored, not turned by an EXIF mark, and what is odd about the file."""

    width: int
    height: int
    flags: tuple[str, ...] = ()


@lru_cache(maxsize=CACHED_FILES)
def read_header(path: Path, max_pixels: int = MAX_IMAGE_PIXELS, decode: bool = False) -> ImageHeader:
    """Opens an image; with `decode`, all of its pixels too, which is what finds a truncated file.

    Flags: `format_mismatch` (a GIF named .jpg), `exif_rotated`, `cmyk`.

    Raises:
        RecordError: not an image, damaged, or more than `max_pixels` pixels - found before any is decoded.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width}x{image.height}"
                raise RecordError("too_large", f"{path} is {size}, above max_image_pixels {max_pixels}")
            flags = _header_flags(image, path)
            if decode:
                image.load()
            return ImageHeader(image.width, image.height, flags)
    except IMAGE_ERRORS as error:
        if isinstance(error, RecordError):
            raise
        reason = "too_large" if isinstance(error, Image.DecompressionBombError) else "bad_image"
        raise RecordError(reason, f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _header_flags(image: Image.Image, path: Path) -> tuple[str, ...]:
    flags = []
    extensions = EXTENSIONS.get(image.format or "")
    if extensions is not None and path.suffix.lower() not in extensions:
        flags.append("format_mismatch")
    if "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
        flags.append("exif_rotated")
    if image.mode == "CMYK":
        flags.append("cmyk")
    return tuple(flags)
