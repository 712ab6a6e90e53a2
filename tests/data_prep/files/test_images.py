"""Images: paths that stay below the root, headers, and files that nobody should decode."""

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.common.errors import DataError, RecordError
from data_prep.files.images import ImageFiles, ImageHeader, existing_image, image_path, read_embedded, read_header
from tests.data_prep.fixtures.llava_mix import draw_bad, forged_png

ROOT = Path("/data/images")


def reason(call, *arguments) -> str:
    with pytest.raises(RecordError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("image", "path"),
    [("a.jpg", "a.jpg"), ("a/../b.jpg", "b.jpg"), ("./a//b.jpg", "a/b.jpg"), ("/data/images/a.jpg", "a.jpg")],
)
def test_paths_below_the_root(image, path) -> None:
    assert image_path(ROOT, image) == ROOT / path


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("../a.jpg", "outside_root"),
        ("a/../../b.jpg", "outside_root"),
        ("/etc/passwd", "outside_root"),
        ("/data/images2/a.jpg", "outside_root"),
        ("", "outside_root"),
        (".", "outside_root"),
        ("a\0.jpg", "outside_root"),
        ("http://example.org/a.jpg", "url"),
        ("HTTPS://example.org/a.jpg", "url"),
        ("file:///etc/passwd", "url"),
        ("s3://bucket/a.jpg", "url"),
        ("data:image/png;base64,aaaa", "url"),
    ],
)
def test_paths_that_are_refused(image, why) -> None:
    assert reason(image_path, ROOT, image) == why
    assert reason(image_path, None, image) in (why, "no_root")


parts = st.sampled_from(["..", ".", "a", "b.jpg", "", "/", "...", "~", "a b", "images"])


@given(st.lists(parts, min_size=1, max_size=8), st.sampled_from([ROOT, Path("/data/x/../images")]))
def test_no_path_leaves_the_root(pieces, root) -> None:
    """Against an independent walk: up for every `..`, down for every name; never above the start, never back at it."""
    image = "/".join(pieces)
    clean = Path(os.path.normpath(root))
    place = [] if image.startswith("/") else list(clean.parts[1:])
    for piece in image.split("/"):
        place = place[:-1] if piece == ".." else [*place, piece] if piece not in ("", ".") else place
    base = list(clean.parts[1:])
    if place[: len(base)] == base and len(place) > len(base):
        assert image_path(root, image) == Path("/", *place)
    else:
        assert reason(image_path, root, image) == "outside_root"


@pytest.mark.parametrize("image", ["absent.jpg", "folder", "a" * 5000, "folder/\ud800.jpg"])
def test_what_is_no_file(tmp_path: Path, image: str) -> None:
    (tmp_path / "folder").mkdir()
    assert reason(existing_image, tmp_path, image) == "no_image"


def test_image_files_name_who_asked(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    files = ImageFiles(f"{tmp_path}/x/..")
    assert files.path("record 3", "a.jpg") == str(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"^record 3: no image file .*b\.jpg"):
        files.path("record 3", "b.jpg")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    draw_bad(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "flags"),
    [("gif.jpg", ("format_mismatch",)), ("cmyk.jpg", ("cmyk",)), ("rotated.jpg", ("exif_rotated",)), ("cut.jpg", ())],
)
def test_headers(bad: Path, name: str, flags: tuple[str, ...]) -> None:
    assert read_header(bad / name) == ImageHeader(200, 100, flags)


def test_truncated_files_show_when_decoded(bad: Path) -> None:
    assert reason(lambda: read_header(bad / "cut.jpg", decode=True)) == "bad_image"
    assert read_header(bad / "cmyk.jpg", decode=True).width == 200


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_any_pixel_is_decoded(bad: Path) -> None:
    for name in ("bomb.png", "large.png"):
        assert reason(lambda path: read_header(path, decode=True), bad / name) == "too_large"
    assert reason(read_header, bad / "cmyk.jpg", 200 * 100 - 1) == "too_large"
    assert read_header(bad / "cmyk.jpg", 200 * 100).height == 100
    assert reason(read_embedded, forged_png(10_000, 10_000), "a.png", "id") == "too_large"


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", forged_png(9, 9)[:20], b"\xff\xd8\xff\xe0"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert reason(read_header, tmp_path / "a.png") == "bad_image"
    assert reason(read_embedded, content, "a.png", "id") == "bad_image"
    with pytest.raises(RecordError, match=r"^a\.png: ") as caught:
        read_embedded(content, "a.png", "id")
    assert "0x" not in str(caught.value)  # the same message in every run


@pytest.mark.parametrize(("form", "name"), [("JPEG", "7.jpg"), ("PNG", "7.png"), ("GIF", "7.gif"), ("WEBP", "7.webp")])
def test_an_embedded_image_gets_a_name_of_its_format(form: str, name: str) -> None:
    file = io.BytesIO()
    Image.new("L", (20, 30)).save(file, form)
    assert read_embedded(file.getvalue(), None, "7") == (name, ImageHeader(20, 30))
    assert read_embedded(file.getvalue(), "", "7") == (name, ImageHeader(20, 30))
    flags = () if form == "JPEG" else ("format_mismatch",)
    assert read_embedded(file.getvalue(), "b/own.jpg", "7") == ("b/own.jpg", ImageHeader(20, 30, flags))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("JPEG", ["a.jpg", "a.jpeg", "a.JPG", "a.jfif"]),
        ("MPO", ["a.jpg", "a.mpo"]),
        ("PNG", ["a.png"]),
        ("GIF", ["a.gif"]),
        ("WEBP", ["a.webp"]),
        ("BMP", ["a.bmp"]),
        ("TIFF", ["a.tif", "a.tiff"]),
        ("PPM", ["a.ppm", "a.pnm"]),
    ],
)
def test_every_format_that_is_read_has_its_names(tmp_path: Path, form: str, names: list[str]) -> None:
    pictures = {"append_images": [Image.new("RGB", (20, 30))], "save_all": True} if form == "MPO" else {}
    for name in [*names, "a.txt", "a", "a.jpg" if form not in ("JPEG", "MPO") else "a.png"]:
        Image.new("RGB", (20, 30)).save(tmp_path / name, form, **pictures)
        assert read_header(tmp_path / name, decode=True).flags == (() if name in names else ("format_mismatch",))


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_other_formats_are_no_images_here(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 30)).save(path, form)
    assert reason(read_header, path) == "bad_image"
    assert reason(read_embedded, path.read_bytes(), "a.png", "7") == "bad_image"


@pytest.mark.parametrize(("path", "key"), [(None, None), ("", ""), (None, "")])
def test_an_embedded_image_without_a_name_is_refused(path: str | None, key: str | None) -> None:
    assert reason(read_embedded, b"", path, key) == "no_name"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_bytes_raise_nothing_else(bad: Path, data) -> None:
    name = data.draw(st.sampled_from(["gif.jpg", "cmyk.jpg", "rotated.jpg"]))
    content = bytearray((bad / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(200, len(content) - 1)))] = data.draw(st.integers(0, 255))
    with suppress(RecordError):
        read_embedded(bytes(content[: data.draw(st.integers(0, len(content)))]), name, "7")
