"""Two hundred photos of known dirt among clean ones: each is named, or read rightly."""

from __future__ import annotations

import io
import os
import shutil
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kpipe import cli
from kpipe.data import audit, conversion_notes, from_folder
from kpipe.pixels import fit_photo
from kpipe.printable import printable
from tests.data.auditing.test_audit import drawn

TIMES = 5  # each kind
CLEAN = {"boat": 12, "house": 12, "tree": 12}
READ = "read"  # no problem, and the same pixels


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def bomb() -> bytes:
    content = bytearray(png_of_16_bits(np.zeros((4, 4, 3))))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    return encoded(image.transpose(back), quality=95, exif=exif)


def moving(format: str, image: Image.Image, other: Image.Image) -> bytes:
    return encoded(image, format, save_all=True, append_images=[other])


def transparent(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def deep(image: Image.Image, bits: int) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(np.uint16) << (bits - 8)


# name -> (content of a scene and another one, expected kinds)
FILES: dict[str, tuple[Callable[[Image.Image, Image.Image], bytes], set[str]]] = {
    "cut.jpg": (lambda a, b: encoded(a)[:-200], {"truncated"}),
    "cut.png": (lambda a, b: encoded(a, "PNG")[:-200], {"truncated"}),
    "cut.gif": (lambda a, b: encoded(a, "GIF")[:-200], {"truncated"}),
    "cut.bmp": (lambda a, b: encoded(a, "BMP")[:-200], {"truncated"}),
    "cut.webp": (lambda a, b: encoded(a, "WEBP")[:-200], {"undecodable"}),
    "cut and closed.jpg": (
        lambda a, b: encoded(a)[: len(encoded(a)) // 2] + b"\xff\xd9",
        {"damaged photo"},
    ),
    "cut turned.jpg": (
        lambda a, b: turned(a, 6)[: len(turned(a, 6)) // 2] + b"\xff\xd9",
        {"damaged photo", "turned upright"},
    ),
    "zeros.jpg": (lambda a, b: encoded(a)[:-900] + bytes(900), {"truncated"}),
    "zeros.png": (
        lambda a, b: encoded(a, "PNG")[:-900] + bytes(900),
        {"damaged photo"},
    ),
    "empty.jpg": (lambda a, b: b"", {"empty file"}),
    "page.jpg": (lambda a, b: b"<!DOCTYPE html><html>not found</html>", {"undecodable"}),
    "phone.jpg": (lambda a, b: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), {"undecodable"}),
    "phone.heic": (lambda a, b: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", {"undecodable"}),
    "notes.txt": (lambda a, b: b"many photos", {"not an image"}),
    "png.jpg": (lambda a, b: encoded(a, "PNG"), {"wrong extension"}),
    "moving.gif": (lambda a, b: moving("GIF", a, b), {"first frame", "converted"}),
    "moving.webp": (lambda a, b: moving("WEBP", a, b), {"first frame"}),
    "moving.png": (lambda a, b: moving("PNG", a, b), {"first frame"}),
    "pages.tif": (lambda a, b: moving("TIFF", a, b), {"first frame"}),
    "cmyk.jpg": (lambda a, b: encoded(a.convert("CMYK"), quality=95), {"converted", READ}),
    "deep.png": (lambda a, b: encoded(Image.fromarray(deep(a, 16)), "PNG"), {"converted"}),
    "12 bits.png": (
        lambda a, b: encoded(Image.fromarray(deep(a, 12)), "PNG"),
        {"converted", "unused range"},
    ),
    "12 bits in color.png": (
        lambda a, b: png_of_16_bits(np.asarray(a).astype(np.uint16) << 4),
        {"unused range"},
    ),
    "16 bits in color.png": (
        lambda a, b: png_of_16_bits(np.asarray(a).astype(np.uint16) * 257),
        {READ},
    ),
    "float.tif": (
        lambda a, b: encoded(Image.fromarray(np.asarray(a.convert("L"), np.float32)), "TIFF"),
        {"undecodable"},
    ),
    "palette.png": (lambda a, b: encoded(a.quantize(250), "PNG"), {"converted"}),
    "glass.png": (lambda a, b: encoded(transparent(a), "PNG"), {"converted"}),
    "turned.jpg": (lambda a, b: turned(a, 6), {"turned upright", READ}),
    "upside down.jpg": (lambda a, b: turned(a, 3), {"turned upright", READ}),
    "grey.png": (lambda a, b: encoded(a.convert("L"), "PNG"), {"grey"}),
    "blank.png": (
        lambda a, b: encoded(Image.new("RGB", a.size, "white"), "PNG"),
        {"constant image"},
    ),
    "bomb.png": (lambda a, b: bomb(), {"too many pixels"}),
    "tiny.png": (lambda a, b: encoded(a.resize((9, 8)), "PNG"), {"tiny image"}),
    "strip.png": (lambda a, b: encoded(b.resize((1800, 60)), "PNG"), {"absurd dimensions"}),
    "LOUD.JPG": (lambda a, b: encoded(a, quality=95), {READ}),
    "no extension": (lambda a, b: encoded(a, "PNG"), {READ}),
    "\x1b[31m\u202e.png": (lambda a, b: encoded(a, "PNG"), {READ}),
    "-rf =cmd \n.png": (lambda a, b: encoded(a, "PNG"), {READ}),
    ".hidden.png": (lambda a, b: encoded(a, "PNG"), {"hidden"}),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, set[str]]]:
    """The photos, and path -> what is expected of each planted one."""
    root = tmp_path_factory.mktemp("planted") / "photos"
    expected: dict[Path, set[str]] = {}
    for number, (label, count) in enumerate(CLEAN.items()):
        (root / label).mkdir(parents=True)
        for place in range(count):
            drawn(1000 + 100 * number + place).save(root / label / f"{place:02}.jpg", quality=92)
    for kind, (name, (content, problems)) in enumerate(FILES.items()):
        for time in range(TIMES):
            seed = 10_000 + 100 * kind + time
            label = list(CLEAN)[time % len(CLEAN)]
            path = root / label / f"{time}" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(drawn(seed), drawn(seed + 50)))
            expected[path] = problems
    expected |= _between_files(root)
    return root, expected


def _between_files(root: Path) -> dict[Path, set[str]]:
    """Copies, links, names and folders."""
    first = root / "boat" / "00.jpg"
    expected = {root / "boat" / "copy.jpg": {"exact duplicate", "same photo, two labels"}}
    expected[root / "tree" / "copy.jpg"] = {"same photo, two labels"}
    for path in expected:
        shutil.copy(first, path)
    near = root / "house" / "near.jpg"
    Image.open(root / "house" / "00.jpg").save(near, quality=60)
    linked = root / "tree" / "linked.jpg"
    linked.symlink_to(root / "house" / "01.jpg")
    dangling, pipe, loop = (root / "tree" / name for name in ("gone.jpg", "pipe.jpg", "loop"))
    dangling.symlink_to("nothing.jpg")
    os.mkfifo(pipe)
    loop.symlink_to(root)
    stray = root / "stray.jpg"
    drawn(9000).save(stray)
    twins = [root / "boat" / unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD")]
    for seed, path in enumerate(twins):
        drawn(9001 + seed).save(path)
    (root / "boat" / ".DS_Store").write_bytes(b"Bud1")
    locked = root / "tree" / "locked.jpg"
    drawn(9003).save(locked)
    locked.chmod(0)
    expected |= {
        near: {"near duplicate"},
        linked: {"same photo, two labels"},
        dangling: {"missing file"},
        pipe: {"unreadable file"},
        loop: {"symlink loop"},
        stray: {"photo outside a class folder"},
        **{path: {READ} for path in twins},
        # Root reads everything.
        locked: {READ} if os.geteuid() == 0 else {"unreadable file"},
    }
    for seed, label in enumerate(("Tree", "boats", "boat|tree", "lamp", "images", "new")):
        folder = root / label
        folder.mkdir()
        for place in range(0 if label == "new" else 3):
            drawn(9100 + 10 * seed + place).save(folder / f"{place}.png")
    return expected


CLASSES = {
    ("label spelling", "'Tree'"),
    ("label spelling", "'boats'"),
    ("several labels", "'boat|tree'"),
    ("folder as a class", "'images'"),
    ("class too small", "'lamp'"),
    ("class without images", "'new'"),
}


def test_all_of_it_is_named_or_read_rightly(planted: tuple[Path, dict[Path, set[str]]]) -> None:
    root, expected = planted
    assert len(expected) > 200
    manifest = from_folder(root, max_unreadable=None)
    rows = [*audit(manifest).problems.itertuples(index=False), *conversion_notes(manifest)]
    found: dict[Path, set[str]] = {}
    for path, kind, _ in rows:
        found.setdefault(Path(path), set()).add(kind)
    silent = {}
    for path, kinds in expected.items():
        missing = {kind for kind in kinds - {READ, "grey"} if kind not in found.get(path, ())}
        if kinds & {READ, "grey"} and str(path) not in set(manifest.table["path"]):
            missing.add("not listed")
        if missing:
            silent[path.relative_to(root)] = missing, found.get(path)
    assert not silent
    unplanned = {
        path: kinds
        for path, kinds in found.items()
        if path.name and path not in expected and kinds - {"same photo, two labels"}
    }
    assert not unplanned, "clean photos"
    for kind, label in CLASSES:
        assert any((kind, True) == (row[1], label in row[2]) for row in rows), (kind, label)


def test_photos_without_a_problem_have_the_pixels_of_their_scene(
    planted: tuple[Path, dict[Path, set[str]]],
) -> None:
    root, _ = planted
    for kind, (name, (_, problems)) in enumerate(FILES.items()):
        if not problems & {READ, "grey"}:
            continue
        for time in range(TIMES):
            scene = drawn(10_000 + 100 * kind + time)
            if "grey" in problems:
                scene = scene.convert("L").convert("RGB")
            path = root / list(CLEAN)[time % len(CLEAN)] / f"{time}" / name
            with path.open("rb") as file:
                pixels = fit_photo(file, path.suffix, (scene.height, scene.width))
            distance = np.abs(pixels.astype(int) - np.asarray(scene)).mean()
            assert distance < 3, name


def test_a_check_names_each_file(
    planted: tuple[Path, dict[Path, set[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, expected = planted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kpipe", "check", str(root)])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    page = (tmp_path / "saved_models" / "check" / "photos" / "check.csv").read_text()
    named = {path for path, kinds in expected.items() if kinds - {READ, "grey"}}
    assert not [path for path in named if printable(str(path)) not in page]
    assert "serious findings" in capfd.readouterr().out
