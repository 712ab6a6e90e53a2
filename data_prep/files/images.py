"""Open image files below a root, and read their headers."""

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from data_prep.common.errors import DataError, RecordError, one_line

# Errors that Pillow raises on damaged files, besides its own subclasses of OSError.
IMAGE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, OverflowError,
    Image.DecompressionBombError,
)  # fmt: skip
MAX_IMAGE_PIXELS = 89_478_485  # Pillow's own warning limit
# The formats that are read: another one may start a program, as EPS does. MPO files are opened as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
FILE_TYPES = {"JPEG": ".jpg", "MPO": ".jpg"}  # other formats: the name of the format


class ImageFiles:
    """Resolve image paths below one root, each of them on disk once."""

    def __init__(self, root: str | None) -> None:
        self.root = None if root is None else Path(os.path.normpath(Path(root).absolute()))
        self.resolved: dict[str, str] = {}

    def path(self, name: str, image: str) -> str:
        """Return the file of `image`; DataError if it is a URL, lies outside the root or does not exist."""
        if image not in self.resolved:
            try:
                self.resolved[image] = str(existing_image(self.root, image))
            except RecordError as error:
                raise DataError(f"{name}: {error}") from None
        return self.resolved[image]


def image_path(root: Path | None, image: str) -> Path:
    """Return the path of `image`, which need not exist; RecordError if it is a URL or would lie outside the root."""
    if re.match(r"[A-Za-z][\w+.-]*:", image):
        raise RecordError("url", f"image {image!r} is a URL; only files below image_root are read", image)
    if root is None:
        raise RecordError("no_root", "has an image, but its source has no image_root", image)
    # Lexical on purpose: links that the root's owner made may lead elsewhere, `..` in a record may not.
    root = Path(os.path.normpath(root))
    path = Path(os.path.normpath(root / image))
    if root not in path.parents or "\0" in image:
        raise RecordError("outside_root", f"image {image!r} lies outside image_root {root}", image)
    return path


def existing_image(root: Path | None, image: str) -> Path:
    """Return the path of `image` as `image_path` does; RecordError also if there is no such file."""
    path = image_path(root, image)
    try:
        exists = path.is_file()
    except OSError:  # a name longer than the file system allows
        exists = False
    if not exists:
        raise RecordError("no_image", f"no image file {path}", image)
    return path


@dataclass(frozen=True)
class ImageHeader:
    """Hold width and height as stored, with no EXIF orientation applied, and flags of what is odd about the file."""

    width: int
    height: int
    flags: tuple[str, ...] = ()


def read_header(path: Path, max_pixels: int | None = MAX_IMAGE_PIXELS, decode: bool = False) -> ImageHeader:
    """Read the header of an image; with `decode`, all of its pixels too, which detects a truncated file.

    Flags: `format_mismatch` (a GIF named .jpg), `exif_rotated`, `cmyk`.

    Raises:
        RecordError: as of `open_image`.
    """
    with open_image(path, max_pixels) as image:
        if decode:
            image.load()
        return _header(image, path)


def read_embedded(
    data: bytes, path: str | None, record_id: str | None, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[str, ImageHeader]:
    """Read an image stored as bytes in a table's cell; return its path below the image root and its header.

    Args:
        path: path in the table; None: the record's id with the extension of the image's format.

    Raises:
        RecordError: as of `open_image`, or there is neither a path nor an id.
    """
    if not path and not record_id:
        raise RecordError("no_name", "the embedded image has no name: neither a path nor an id")
    with open_image(PurePath(path or str(record_id)), max_pixels, io.BytesIO(data)) as image:
        form = image.format or ""
        name = path or f"{record_id}{FILE_TYPES.get(form, f'.{form.lower()}')}"
        return name, _header(image, PurePath(name))


@contextmanager
def open_image(
    path: PurePath, max_pixels: int | None = MAX_IMAGE_PIXELS, data: IO[bytes] | None = None
) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS`; errors of the block that reads its pixels are `RecordError`s too.

    Args:
        max_pixels: larger images are refused before they are decoded; None: Pillow's own limit alone holds.
        data: content of the image; None: that of the file `path`.

    Raises:
        RecordError: the file is not an image, is damaged or is too large; the message begins with `path`.
    """
    try:
        with Image.open(data or path, formats=FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                size = f"{image.width}x{image.height}"
                raise RecordError("too_large", f"{path} is {size}, above max_image_pixels {max_pixels}")
            yield image
    except UnidentifiedImageError:  # its message holds a memory address if the image is no file
        raise RecordError("bad_image", f"{path}: not an image") from None
    except RecordError:
        raise
    except IMAGE_ERRORS as error:
        reason = "too_large" if isinstance(error, Image.DecompressionBombError) else "bad_image"
        raise RecordError(reason, f"{path}: {one_line(error)}") from None


def open_rgb(
    path: Path, max_pixels: int | None = MAX_IMAGE_PIXELS, expected_size: tuple[int, int] | None = None
) -> Image.Image:
    """Read an image in RGB as annotations see it: an EXIF orientation is not applied.

    Args:
        max_pixels: as of `open_image`.
        expected_size: width and height that the image's region refers to.

    Raises:
        RecordError: as of `open_image`, or the image has another size.
    """
    with open_image(path, max_pixels) as image:
        if expected_size is not None and image.size != expected_size:
            width, height = expected_size
            message = f"{path} is {image.width}x{image.height}, its region is of {width}x{height}"
            raise RecordError("size_mismatch", message)
        return image.convert("RGB")


def _header(image: Image.Image, path: PurePath) -> ImageHeader:
    flags = {
        "format_mismatch": path.suffix.lower() not in _extensions(image.format or ""),
        "exif_rotated": "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1),
        "cmyk": image.mode == "CMYK",
    }
    return ImageHeader(image.width, image.height, tuple(flag for flag, is_set in flags.items() if is_set))


@cache
def _extensions(form: str) -> frozenset[str]:
    """Return the extensions of a format's files. MPO is JPEG with further pictures after the first, and named so."""
    forms = {form, "JPEG"} if form == "MPO" else {form}
    return frozenset(end for end, known in Image.registered_extensions().items() if known in forms)


def expect_large_images() -> None:
    """Silence Pillow's warning of large images in this process: their size is checked and reported by name here."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
