from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from kpipe.data import from_dataframe, from_folder, merge
from kpipe.errors import DataError


def test_a_folder_and_a_table_are_one_manifest(folder: Path, photo: Callable[..., Path]) -> None:
    other = [photo(f"../other/{place}.png", seed=100 + place) for place in range(3)]
    df = pd.DataFrame(
        {
            "file": other,
            "kind": ["cat", "cow", "cow"],
            "split": ["test", "", "train"],
            "farm": list("xyz"),
        }
    )
    listed = from_dataframe(df, image="file", label="kind", max_unreadable=None)
    merged = merge([from_folder(folder), listed])
    assert merged.classes == ("cat", "cow", "dog", "owl")
    assert merged.counts().sum(axis=1).to_dict() == {"cat": 21, "cow": 2, "dog": 10, "owl": 7}
    assert merged.table["path"].tolist()[37:] == [str(path.resolve()) for path in other]
    assert merged.table["split"].tolist() == [""] * 37 + ["test", "", "train"]
    assert merged.table["farm"].tolist() == [""] * 37 + ["x", "y", "z"]


def test_photos_of_two_manifests_that_look_the_same_are_found(photo: Callable[..., Path]) -> None:
    for seed, name in enumerate(["a/1", "a/2", "b/1", "b/2"]):
        path = photo(f"one/{name}.png", seed=seed, size=(5, 5))
        one, two = path.parents[1], path.parents[2] / "two"
        (two / name).parent.mkdir(parents=True, exist_ok=True)
        smooth = Image.open(path).resize((96, 96), Image.Resampling.BICUBIC)
        smooth.save(path)
        smooth.save(two / f"{name}.jpg", quality=90)
    manifests = [from_folder(one), from_folder(two)]
    assert not set(manifests[0].table["similar"]) & set(manifests[1].table["similar"])
    merged = merge(manifests).table
    assert merged["similar"].tolist()[:4] == merged["similar"].tolist()[4:]
    assert merged["similar"].nunique() == 4


def test_what_two_manifests_list_is_kept_once_and_told(folder: Path) -> None:
    manifest = from_folder(folder)
    merged = merge([manifest, manifest])
    pd.testing.assert_frame_equal(merged.table, manifest.table)
    assert merged.problems["kind"].tolist() == ["listed twice"] * 37


def test_problems_travel_but_those_that_the_other_mends(folder: Path) -> None:
    (folder / "cat" / "00.png").write_bytes(b"")
    (folder / "dog" / "00.png").rename(folder / "dog" / "00.jpg")
    (folder / "fox").mkdir()
    files = [f"owl/0{place}.png" for place in range(6)]
    df = pd.DataFrame({"file": files, "kind": ["fox"] * 3 + ["owl"] * 3})
    listed = from_dataframe(df, image="file", label="kind", root=folder)
    assert (listed.problems["kind"] == "file without a row").sum() == 1 + 20 + 10
    merged = merge([from_folder(folder), listed])
    found = merged.problems.groupby("kind")["path"].agg(lambda paths: [Path(p).name for p in paths])
    assert found.to_dict() == {
        "empty file": ["00.png"],
        "file without a row": ["00.png"],
        "listed twice": ["03.png", "04.png", "05.png"],
        "wrong extension": ["00.jpg"],
    }


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to merge"):
        merge([])
