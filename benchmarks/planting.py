"""Plant known defects of every kind among photos, for `check.py` to look for."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

__all__ = ["SEED", "Planter"]

SEED = 7
Change = Callable[[Image.Image], Image.Image]


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        return image.crop(tuple(round(side) for side in box))

    return change


def scaled(factor: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        size = [max(8, round(side * factor)) for side in image.size]
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def noisy(image: Image.Image) -> Image.Image:
    grain = np.random.default_rng(SEED).normal(0, 8, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    font = ImageFont.load_default(max(6, image.height // 14))
    place = (0.55 * image.width, 0.88 * image.height)
    ImageDraw.Draw(image).text(place, "(c) photo", "white", font, stroke_width=1, stroke_fill=0)
    return image


def same(image: Image.Image) -> Image.Image:
    return image


# (change of a photo, file extension, JPEG quality)
NEAR: dict[str, tuple[Change, str, int]] = {
    "JPEG of quality 30": (same, ".jpg", 30),
    "JPEG of quality 60": (same, ".jpg", 60),
    "JPEG of quality 90": (same, ".jpg", 90),
    "as PNG": (same, ".png", 0),
    "as WebP of quality 60": (same, ".webp", 60),
    "0.3 of the size": (scaled(0.3), ".jpg", 90),
    "0.5 of the size": (scaled(0.5), ".jpg", 90),
    "2 times the size": (scaled(2), ".jpg", 90),
    "3 times the size": (scaled(3), ".jpg", 90),
    "brightness + 15 %": (lambda image: ImageEnhance.Brightness(image).enhance(1.15), ".jpg", 90),
    "brightness - 20 %": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), ".jpg", 90),
    "contrast + 20 %": (lambda image: ImageEnhance.Contrast(image).enhance(1.2), ".jpg", 90),
    "saturation - 30 %": (lambda image: ImageEnhance.Color(image).enhance(0.7), ".jpg", 90),
    "grey": (lambda image: image.convert("L"), ".jpg", 90),
    "noise of 8 levels": (noisy, ".jpg", 90),
    "small watermark": (marked, ".jpg", 90),
    "2 % cropped on each side": (cropped(0.02, 0.02, 0.02, 0.02), ".jpg", 90),
    "5 % cropped on one side": (cropped(0.05, 0, 0, 0), ".jpg", 90),
    "5 % cropped on two sides": (cropped(0.05, 0.05, 0, 0), ".jpg", 90),
    "5 % cropped on each side": (cropped(0.05, 0.05, 0.05, 0.05), ".jpg", 90),
}


def bomb() -> bytes:
    """Return the header of a PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


class Planter:
    """Plants defects and records which files must be found.

    Args:
        folder: class folders of photos.
        groups: groups of photos that look the same, as paths below the folder.
        number: plants of each kind.
    """

    def __init__(self, folder: Path, groups: list[list[str]], number: int) -> None:
        self.folder = folder
        # There must be photos enough.
        self.number = min(number, len(groups) // 30)
        self.groups = {names[0]: names for names in groups}
        self.classes = sorted(path.name for path in folder.iterdir())
        self.random = random.Random(SEED)
        self.clean = self.random.sample(sorted(self.groups), len(groups))
        # The plants, the photos that they were made from, and all look-alikes of those.
        self.touched: set[str] = set()
        # {(plant, kind of problem): for each plant, paths of which one must be named}
        self.plants: dict[tuple[str, str], list[set[str]]] = defaultdict(list)

    def photo(self) -> Path:
        """Return a different photo each time, so that no two plants are related."""
        name = self.clean.pop()
        self.touched.update(self.groups[name])
        return self.folder / name

    def put(self, what: str, kind: str, label: str, suffix: str, *also: Path) -> Path:
        """Return the path for a plant that must be found, and record it."""
        place = len(self.plants[what, kind])
        path = self.folder / label / f"{what}, {kind} {place}{suffix}"
        names = {str(named.relative_to(self.folder)) for named in (path, *also)}
        self.plants[what, kind].append(names)
        self.touched.update(names)
        return path

    def plant(self) -> None:
        for _ in range(self.number):
            self.files()
            self.pictures()
            self.copies()
        self.spelling()
        self.few()

    def files(self) -> None:
        photo = self.photo()
        label, content = photo.parent.name, photo.read_bytes()
        torn = content[: round(len(content) * self.random.uniform(0.3, 0.9))]
        self.put("truncated", "truncated", label, photo.suffix).write_bytes(torn)
        self.put("empty", "empty file", label, ".jpg").touch()
        text = self.put("text", "undecodable", label, ".jpg")
        text.write_text(f"<html>{self.random.random()}</html>")
        self.put("60,000 x 60,000", "too many pixels", label, ".png").write_bytes(bomb())
        Image.open(self.photo()).convert("RGB").rotate(90, expand=True).save(
            self.put("PNG named .jpg", "wrong extension", label, ".jpg"), "PNG"
        )

    def pictures(self) -> None:
        photo = self.photo()
        image, label = Image.open(photo).convert("RGB"), photo.parent.name
        color = tuple(self.random.randrange(256) for _ in range(3))
        flat = Image.new("RGB", image.size, color)
        flat.save(self.put("one color", "constant image", label, ".png"))
        side = self.random.randint(3, 9)
        grain = np.random.default_rng(self.random.randrange(2**32)).integers(0, 256, (200, 2000, 3))
        noise = Image.fromarray(grain.astype(np.uint8))
        noise.crop((0, 0, side, side)).save(self.put("tiny", "tiny image", label, ".png"))
        strip = noise.crop((0, 0, 2000, self.random.randint(40, 60)))
        strip.save(self.put("strip", "absurd dimensions", label, ".png"))

    def copies(self) -> None:
        photo = self.photo()
        shutil.copyfile(
            photo, self.put("copy", "exact duplicate", photo.parent.name, photo.suffix, photo)
        )
        for what, quality in (("copy", 0), ("JPEG of quality 60", 60)):
            photo = self.photo()
            other = self.random.choice([name for name in self.classes if name != photo.parent.name])
            suffix = ".jpg" if quality else photo.suffix
            path = self.put(what, "same photo, two labels", other, suffix, photo)
            if quality:
                Image.open(photo).convert("RGB").save(path, quality=quality)
            else:
                shutil.copyfile(photo, path)
        for what, (change, suffix, quality) in NEAR.items():
            photo = self.photo()
            path = self.put(what, "near duplicate", photo.parent.name, suffix, photo)
            change(Image.open(photo).convert("RGB")).save(path, quality=quality or 75)

    def spelling(self) -> None:
        for name, variant in zip(self.classes, (str.upper, str.title, "{} ".format), strict=False):
            if variant(name) == name:
                continue
            folder = self.folder / variant(name)
            folder.mkdir()
            for _ in range(3):
                path = next(path for path in self.clean if Path(path).parent.name == name)
                self.clean.remove(path)
                (self.folder / path).rename(folder / Path(path).name)
            self.plants["class in another spelling", "label spelling"].append({variant(name)})
            self.touched.add(variant(name))

    def few(self) -> None:
        (self.folder / "zebra crossing").mkdir()
        for _ in range(4):
            photo = self.photo()
            photo.rename(self.folder / "zebra crossing" / photo.name)
        self.plants["class of four", "class too small"].append({"zebra crossing"})
        self.touched.add("zebra crossing")
