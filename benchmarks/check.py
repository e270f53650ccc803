"""How much of the dirt that is planted among real photos `kpipe check` finds, and what it costs.

    python benchmarks/check.py FOLDER ... [--plant 20] [--photos 2000] [--files 20000]

FOLDER holds class folders, at any depth. A sample of its photos is copied, audited as it is, then
planted with known dirt of every kind, and audited again. The first table says what was found; then
come the findings that were neither planted nor there before (false alarms), and those of the photos
as they are, which only an eye can judge. With --files the last row says what `kpipe check` costs as
a whole process, first and second time, on so many unique cuts of the same photos.
"""

from __future__ import annotations

import argparse
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from kpipe.data import audit, from_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
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


# What is done to a photo, and how it is saved.
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
    """The header of a PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def sample(source: Path, folder: Path, photos: int) -> None:
    """Copy photos into `folder/class/`, evenly spread over what is found."""
    files = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if photos < len(files):
        files = sorted(random.Random(SEED).sample(files, photos))
    for number, path in enumerate(files):
        target = folder / path.parent.name / f"{number:06}{path.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def findings(folder: Path) -> dict[str, dict[str, str]]:
    """{kind: {path below the folder, or "": detail}}."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    problems = audit(from_folder(folder, max_unreadable=None)).problems
    for path, kind, detail in problems.itertuples(index=False):
        name = str(Path(path).relative_to(folder)) if path else detail
        found[kind][name] = detail
    return found


class Planter:
    """Plants dirt, and keeps who must be found for it.

    Args:
        folder: class folders of photos.
        clean: photos of the folder, none like another, as paths below it.
        number: of plants of each kind.
    """

    def __init__(self, folder: Path, clean: list[str], number: int) -> None:
        self.folder, self.number = folder, number
        self.classes = sorted(path.name for path in folder.iterdir())
        self.random = random.Random(SEED)
        self.clean = self.random.sample(clean, len(clean))
        # (what was planted, kind of problem): for each plant, the paths of which one must be named.
        self.plants: dict[tuple[str, str], list[set[str]]] = defaultdict(list)

    def photo(self) -> Path:
        """Another photo each time, so that no two plants have to do with each other."""
        return self.folder / self.clean.pop()

    def put(self, what: str, kind: str, label: str, suffix: str, *also: Path) -> Path:
        """Where to write a plant that must be found."""
        place = len(self.plants[what, kind])
        path = self.folder / label / f"{what}, {kind} {place}{suffix}"
        self.plants[what, kind].append(
            {str(named.relative_to(self.folder)) for named in (path, *also)}
        )
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

    def few(self) -> None:
        (self.folder / "zebra crossing").mkdir()
        for _ in range(4):
            photo = self.photo()
            photo.rename(self.folder / "zebra crossing" / photo.name)
        self.plants["class of four", "class too small"].append({"zebra crossing"})


def compare(source: Path, photos: int, number: int) -> None:
    """Print what was found of what was planted in a copy of one folder."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "photos"
        sample(source, folder, photos)
        before = findings(folder)
        table = from_folder(folder, max_unreadable=None).table
        # One photo of each natural group, and no more plants than there are of these.
        alone = [
            str(Path(path).relative_to(folder)) for path in table.drop_duplicates("similar")["path"]
        ]
        planter = Planter(folder, alone, min(number, len(alone) // 30))
        planter.plant()
        after = findings(folder)
        print(f"\n## {source.name}: {len(table)} photos\n")
        print("| planted | kind | found |\n|---|---|---|")
        expected: dict[str, set[str]] = defaultdict(set)
        for (what, kind), plants in planter.plants.items():
            named = after.get(kind, {})
            hits = sum(any(is_named(name, named) for name in names) for names in plants)
            expected[kind].update(*plants)
            print(f"| {what} | {kind} | {hits} of {len(plants)} |")
        alarms = Counter(
            {
                kind: sum(
                    name not in before.get(kind, {})
                    and not any(is_named(plant, {name: ""}) for plant in expected[kind])
                    for name in named
                )
                for kind, named in after.items()
            }
        )
        told = {kind: count for kind, count in alarms.items() if count}
        print(f"\nfalse alarms among {len(table)} photos: {told or 'none'}")
        print(f"of the photos as they are: { {kind: len(each) for kind, each in before.items()} }")


def is_named(plant: str, named: dict[str, str]) -> bool:
    """Whether a path is among those named, or a label quoted in what is told of the classes."""
    return plant in named or any(detail.startswith(repr(plant)) for detail in named)


def cut(sources: list[Path], folder: Path, number: int) -> None:
    """Unique files: square cuts of a third of a photo's side, from other places each round."""
    files = [
        path
        for source in sources
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    for count in range(number):
        path = files[count % len(files)]
        round_ = count // len(files)
        image = Image.open(path).convert("RGB")
        side = min(image.size) // 3
        column, row = round_ % 3, round_ // 3 % 3
        left, top = column * (image.width - side) // 2, row * (image.height - side) // 2
        target = folder / path.parent.name / f"{count:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        piece = image.crop((left, top, left + side, top + side))
        piece.resize((224, 224), Image.Resampling.BICUBIC).save(target, quality=88)


def clock(sources: list[Path], number: int) -> None:
    """Print what the whole command costs, first and second time."""
    command = str(Path(sys.executable).parent / "kpipe")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "photos"
        cut(sources, folder, number)
        # What changed within the last two seconds is not remembered.
        time.sleep(3)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            arguments = [command, "check", str(folder), "--root", str(Path(base) / "root")]
            subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
        print(f"\n| files | first | second | ratio |\n|---|---|---|---|\n| {number} |", end="")
        print(f" {seconds[0]:.1f} s | {seconds[1]:.2f} s | {seconds[1] / seconds[0]:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--plant", type=int, default=20, help="plants of each kind; 0: none")
    parser.add_argument("--photos", type=int, default=2000, help="of each folder")
    parser.add_argument("--files", type=int, default=0, help="to take the time on")
    options = parser.parse_args()
    if options.plant:
        for folder in options.folders:
            compare(folder, options.photos, options.plant)
    if options.files:
        clock(options.folders, options.files)


if __name__ == "__main__":
    main()
