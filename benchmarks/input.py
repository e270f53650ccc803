"""Measure how fast photos reach training, as ratios measured side by side, and in how much memory.

    python benchmarks/input.py FOLDER [--big FOLDER] [--grain 2] [--rows on-the-fly memory ...]

FOLDER holds one folder per class, as the clothing dataset (CC0) does, at any depth. Each ratio is
the median of several rounds; in a round both sides run, one right after the other. The ratio of
processor times is shown too, since other work on the machine disturbs it less.

    on-the-fly   decode, rotate upright, crop, resize to 160 px and batch JPEG files, over a bare
                 parallel `tf.io.decode_jpeg` and `tf.image.resize` of the same files
    large        the same on photos of 12 megapixels, over Keras' loader with the same size and
                 crop: `keras.utils.image_dataset_from_directory`
    cache        an epoch from the decoded photos, over `decode` and the epoch after it
    training     decoded photos with the augmentation of `Augment()`, over a training step of
                 MobileNetV2 0.35 at 160 px, with all layers or the last 30 training
    memory       the peak memory of a process that lists, splits, decodes (to 4.9 GB) and walks
                 100,000 photos

Photos of 12 megapixels come from `--big`. Otherwise the script enlarges those of FOLDER bicubically
to 4000 x 3000 and saves them as JPEG of quality 90. These are smooth pictures of 0.8 MB each.
`--grain` adds noise of that standard deviation, as a sensor does (2: 1.3 MB; 4: 2.4 MB); noise
slows every decoder down and reduces the lead of decoding at reduced scale. The script uses up to 6
GB of the temporary folder (TMPDIR) and deletes them.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE, BATCH, STEPS = 160, 32, 30
Work = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The two sides of a row: wall time and processor time in seconds, (rounds, sides, 2)."""

    seconds: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """The speed of the first side over that of the second, in each round: (rounds, 2)."""
        return self.seconds[:, 1] / self.seconds[:, 0]

    def rates(self, *photos: int) -> str:
        """Return the photos per second of wall time, of both sides."""
        first, second = np.array(photos) / np.median(self.seconds[..., 0], axis=0)
        return f"{first:,.0f} and {second:,.0f} photos/s"


def measure(mine: Work, other: Work, rounds: int) -> Measured:
    seconds = np.zeros((rounds + 1, 2, 2))
    for one in seconds:
        for side, work in enumerate((mine, other)):
            start = time.perf_counter(), time.process_time()
            work()
            one[side] = time.perf_counter() - start[0], time.process_time() - start[1]
    return Measured(seconds[1:])  # the first round compiles, opens and caches


def walk(data: Any) -> None:
    for _ in data:
        pass


def show(name: str, measured: Measured, target: float, note: str) -> None:
    wall, processors = np.median(measured.ratios, axis=0)
    low, high = measured.ratios[:, 0].min(), measured.ratios[:, 0].max()
    cells = [name, f"{wall:.2f}", f"{low:.2f} to {high:.2f}", f"{processors:.2f}", f"{target:g}"]
    print(f"| {' | '.join([*cells, note])} |", flush=True)


def list_jpegs(folder: Path, most: int) -> Any:
    """Return a manifest of JPEG files, all in the training split."""
    from kpipe.data import from_folder

    manifest = from_folder(folder)
    table = manifest.table[manifest.table["format"] == "JPEG"]
    table = table.sample(min(most, len(table)), random_state=0).reset_index(drop=True)
    return dataclasses.replace(manifest, table=table.assign(split="train"))


def once(manifest: Any, **options: Any) -> Any:
    """Return every photo once, in batches."""
    from kpipe.data import dataset

    return dataset(manifest, "train", batch_size=BATCH, **options)


def on_the_fly(folder: Path, options: argparse.Namespace) -> None:
    import tensorflow as tf

    manifest = list_jpegs(folder, options.photos)

    def decoded(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (SIZE, SIZE))

    bare = tf.data.Dataset.from_tensor_slices(manifest.table["path"].tolist())
    bare = bare.map(decoded, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    mine = once(manifest, image_size=SIZE)
    measured = measure(partial(walk, mine), partial(walk, bare), options.rounds)
    count = len(manifest.table)
    note = f"{measured.rates(count, count)}, {count} photos"
    show("on the fly / bare decode and resize", measured, 0.9, note)


def enlarge(folder: Path, target: Path, grain: float, count: int = 40) -> None:
    generator = np.random.default_rng(0)
    for place, path in enumerate(sorted(folder.rglob("*.jpg"))[:count]):
        with Image.open(path) as photo:
            size = (4000, 3000) if photo.width > photo.height else (3000, 4000)
            large = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        if grain:
            noise = generator.normal(0, grain, (size[1], size[0], 1))
            large = Image.fromarray(np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8))
        (target / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        large.save(target / "ab"[place % 2] / f"{place}.jpg", quality=90)


def large(folder: Path, options: argparse.Namespace) -> None:
    import keras

    from kpipe.data import decode

    with tempfile.TemporaryDirectory() as scratch:
        if options.big is None:
            enlarge(folder, Path(scratch) / "big", options.grain)
        big = options.big or Path(scratch) / "big"
        manifest = list_jpegs(big, 400)
        count = len(manifest.table)
        megabytes = sum(Path(path).stat().st_size for path in manifest.table["path"]) / 1e6
        theirs = keras.utils.image_dataset_from_directory(
            big, image_size=(SIZE, SIZE), batch_size=BATCH, crop_to_aspect_ratio=True, verbose=False
        )
        mine = {
            "12 MP on the fly": once(manifest, image_size=SIZE),
            "12 MP, later epochs": once(
                manifest, images=decode(manifest, SIZE, Path(scratch) / "cache")
            ),
        }
        for name, data in mine.items():
            measured = measure(partial(walk, data), partial(walk, theirs), options.rounds)
            note = f"{measured.rates(count, count)}, {megabytes / count:.1f} MB each"
            show(f"{name} / image_dataset_from_directory", measured, 4, note)


def cache(folder: Path, options: argparse.Namespace) -> None:
    from kpipe.data import decode

    manifest = list_jpegs(folder, options.photos)
    with tempfile.TemporaryDirectory() as scratch:
        images = decode(manifest, SIZE, Path(scratch) / "kept")
        second = once(manifest, images=images)

        def first() -> None:
            walk(once(manifest, images=decode(manifest, SIZE, Path(scratch) / "again")))

        measured = measure(partial(walk, second), first, options.rounds)
    count = len(manifest.table)
    note = f"{measured.rates(count, count)}, {count} photos"
    show("second epoch / first, with the decoding", measured, 5, note)


def training(folder: Path, options: argparse.Namespace) -> None:
    import keras
    import tensorflow as tf

    from kpipe.data import Augmenter, TrainingOptions, dataset, decode
    from kpipe.stages import Augment

    manifest, declared = list_jpegs(folder, options.photos), Augment()
    names = [field.name for field in dataclasses.fields(Augmenter)]
    augmenter = Augmenter(**{name: getattr(declared, name) for name in names})
    network = keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), alpha=0.35, weights=None, include_top=False, pooling="avg"
    )
    model = keras.Sequential(
        [keras.layers.Rescaling(1 / 127.5, -1), network, keras.layers.Dense(10, "softmax")]
    )
    batch = tf.random.uniform((BATCH, SIZE, SIZE, 3), maxval=255.0), tf.zeros((BATCH,), tf.int32)
    same = tf.data.Dataset.from_tensors(batch).repeat(STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        images = decode(manifest, SIZE, scratch)
        data = dataset(
            manifest, "train", images=images, training=TrainingOptions(augmenter=augmenter)
        )
        data = data.take(STEPS)
        for name, last in (("all layers", len(network.layers)), ("the last 30 layers", 30)):
            for layer in network.layers[:-last]:
                layer.trainable = False
            model.compile("adam", "sparse_categorical_crossentropy")
            measured = measure(
                partial(walk, data),
                partial(model.fit, same, verbose=0, shuffle=False),
                options.rounds,
            )
            note = measured.rates(STEPS * BATCH, STEPS * BATCH)
            show(f"augmented input / training of {name}", measured, 1.5, note)


def scatter(folder: Path, count: int) -> None:
    """Write small JPEG files, no two alike, a thousand per folder."""
    generator = np.random.default_rng(0)
    for place in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), np.uint8))
        path = folder / f"class_{place % 20:02}" / f"{place // 1000:03}" / f"{place:06}.jpg"
        if place % 1000 < 20:
            path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(path, quality=80)


def peak() -> float:
    """Return the peak memory of this process since the last call, in MB; Linux only."""
    # Not getrusage, in which a process starts with the peak of its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def occupy(folder: Path, reports: Any) -> None:
    """Put (step, peak MB, seconds) into a queue; runs in a separate process."""
    from kpipe.data import TrainingOptions, dataset, decode, from_folder, split, steps

    start = time.perf_counter()

    def report(step: str) -> None:
        reports.put((step, peak(), time.perf_counter() - start))

    manifest = from_folder(folder / "photos")
    report("listed")
    manifest = split(manifest)
    report("split")
    images = decode(manifest, 128, folder / "cache")
    report(f"decoded to {images.nbytes / 1e9:.1f} GB")
    data = dataset(manifest, "train", images=images, training=TrainingOptions(), batch_size=BATCH)
    walk(data.take(steps(manifest, "train", BATCH)))
    report("an epoch from the cache")
    data = dataset(manifest, "train", image_size=128, training=TrainingOptions(), batch_size=BATCH)
    walk(data.take(steps(manifest, "train", BATCH)))
    report("an epoch from the files")
    reports.put(None)


def memory(folder: Path, options: argparse.Namespace) -> None:
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        scatter(Path(scratch) / "photos", options.listed)
        reports = spawned.Queue()
        process = spawned.Process(target=occupy, args=(Path(scratch), reports), daemon=True)
        process.start()
        print(f"\n| {options.listed:,} photos | peak MB, target below 2048 | seconds so far |")
        print("|---|---|---|")
        for step, megabytes, seconds in iter(reports.get, None):
            print(f"| {step} | {megabytes:.0f} | {seconds:.0f} |", flush=True)
        process.join()


ROWS = {
    "on-the-fly": on_the_fly,
    "large": large,
    "cache": cache,
    "training": training,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--big", type=Path, help="photos of 12 megapixels, a folder per class")
    parser.add_argument("--grain", type=float, default=0.0, help="standard deviation of noise")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=3000, help="of FOLDER, at most")
    parser.add_argument("--listed", type=int, default=100_000, help="photos in the row of memory")
    options = parser.parse_args()
    print("| ratio | median | rounds | in processor time | target | speed |")
    print("|---|---|---|---|---|---|")
    for name in options.rows:
        ROWS[name](options.folder, options)


if __name__ == "__main__":
    main()
