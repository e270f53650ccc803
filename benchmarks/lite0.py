"""Check EfficientNet-Lite0's ImageNet weights on the garments in a folder of photos.

    python benchmarks/lite0.py FOLDER

FOLDER holds one folder per garment, as the clothing dataset (CC0) does, at any depth. The shorter
side of each photo is scaled to 256 pixels, and the middle 224 x 224 is classified. The table shows
how often the first of the 1,000 predictions, and one of the first five, is an ImageNet class of
that garment. ImageNet's classes are narrower than the folders, so the table checks the port and is
no benchmark score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kpipe.train import EfficientNetLite0

# ImageNet class numbers of each garment.
GARMENTS = {
    "dress": [578, 601, 655, 689, 735, 824],  # gown, hoopskirt, miniskirt, overskirt, poncho, stole
    "hat": [439, 515, 793, 808],  # bearskin, cowboy hat, shower cap, sombrero
    "longsleeve": [610, 841],  # jersey or T-shirt, sweatshirt
    "outwear": [474, 568, 617, 735, 869],  # cardigan, fur coat, lab coat, poncho, trench coat
    "pants": [608],  # jeans
    "shirt": [610, 617],
    "shoes": [502, 514, 630, 770, 774, 788],  # clog, cowboy boot, loafer, running shoe, sandal
    "shorts": [608, 842],  # swimming trunks
    "skirt": [601, 655, 689],
    "t-shirt": [610],
}


def middle(path: Path) -> np.ndarray:
    """Load a photo as (224, 224, 3) float32 in [0, 255]."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    model = EfficientNetLite0()
    print("| garment | photos | first prediction | in the first five |\n|---|---|---|---|")
    hits = np.zeros((0, 2))
    for garment, classes in GARMENTS.items():
        photos = sorted(folder.rglob(f"{garment}/*.jpg"))
        rows = []
        for start in range(0, len(photos), 32):
            batch = np.stack([middle(photo) for photo in photos[start : start + 32]])
            best = np.argsort(model.predict(batch, verbose=0))[:, ::-1]
            rows += [(row[0] in classes, bool(np.isin(row[:5], classes).any())) for row in best]
        if rows:
            hits = np.concatenate([hits, rows])
            first, five = np.mean(rows, axis=0)
            print(f"| {garment} | {len(rows)} | {first:.1%} | {five:.1%} |")
    if len(hits):
        print(f"| all | {len(hits)} | {hits[:, 0].mean():.1%} | {hits[:, 1].mean():.1%} |")


if __name__ == "__main__":
    main()
