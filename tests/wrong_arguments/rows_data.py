"""Right calls of `kpipe`, `kpipe.stages`, `kpipe.data` and `kpipe.report`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kpipe import stages
from kpipe.core.journal import Journal
from kpipe.data import Augmenter, Sampling, TrainingOptions, audit
from tests.wrong_arguments.things import Things
from tests.wrong_arguments.walk import Made, Row

__all__ = ["RESULTS", "ROWS"]

# Classes of which kpipe makes the objects, and names that are not functions.
RESULTS = {
    *("kpipe.KpipeError", "kpipe.__version__"),
    *("kpipe.data.Audit", "kpipe.data.SPLITS"),
}

MANIFEST = ("manifest", Made(lambda things: things.manifest))
UNSPLIT = ("manifest", Made(lambda things: things.unsplit))
ROOT = ("path", Made(lambda things: things.photos))
PROGRESS = ("function", None)
READING = {
    "max_unreadable": ("fraction", 0.1),
    "cache": ("new_folder", None),
    "progress": PROGRESS,
}
RESAMPLING = {
    "photos": ("labels", Made(lambda things: things.labels)),
    "ratio": ("fraction", 0.5),
    "seed": ("seed", 0),
}


def run_folder(things: Things) -> Path:
    folder = Path("saved_models", "colors", "run")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").unlink(missing_ok=True)
    Journal(folder / "journal.jsonl").record("run_started")
    return folder


def first_batch(dataset: Any) -> list[np.ndarray]:
    return [part.numpy() for part in next(iter(dataset))]


STAGES = [stages.Data("photos"), stages.FineTune("MobileNet"), stages.Export()]
ROWS = {
    "kpipe.Pipeline": Row(
        {"name": ("name", "colors"), "stages": ("anything", STAGES), "seed": ("seed", 0)}
    ),
    "kpipe.data.Augmenter": Row(
        {
            **dict.fromkeys(("rotate", "crop", "hue", "blur", "aug_mix"), ("fraction", 0.2)),
            "jpeg": ("number", 90),
            "flip": ("name", "horizontal"),
        },
        tuple(
            field.name
            for field in dataclasses.fields(Augmenter)
            if field.name not in ("rotate", "crop", "hue", "blur", "aug_mix", "jpeg", "flip")
        ),
    ),
    "kpipe.data.Mixer": Row(dict.fromkeys(("mix_up", "cut_mix", "fourier_mix"), ("number", 0.2))),
    "kpipe.data.Manifest": Row(
        {
            "table": ("table", Made(lambda things: things.manifest.table)),
            "classes": ("names", ("a", "b", "c")),
            "problems": ("table", Made(lambda things: things.manifest.problems)),
            "statuses": ("", {}),
        }
    ),
    "kpipe.data.Manifest.load": Row({"folder": ("path", Made(lambda things: save(things)))}),
    "kpipe.data.Manifest.labels": Row({"self": ("", MANIFEST[1]), "split": ("name", "train")}),
    "kpipe.data.Manifest.save": Row({"self": ("", UNSPLIT[1]), "folder": ("new_folder", "saved")}),
    "kpipe.data.Sampling": Row(
        {"method": ("name", "oversample"), "ratio": ("fraction", 0.5)},
        use=lambda made: made.targets([0, 1, 1]),
    ),
    "kpipe.data.Sampling.draw": Row(
        {
            "self": ("", Sampling("oversample")),
            "labels": ("labels", [0, 1, 1]),
            "seed": ("seed", 0),
            "epoch": ("count", 0),
        }
    ),
    "kpipe.data.TrainingOptions": Row(
        {
            "seed": ("seed", 0),
            "augmenter": ("anything", None),
            "first_epoch": ("count", 0),
            "sampling": ("anything", None),
            "mixer": ("anything", None),
            "class_weight": ("mapping", {0: 1.0}),
            "bootstrap": ("seed", 0),
        }
    ),
    "kpipe.data.audit": Row(
        {"manifest": UNSPLIT, "cache": ("new_folder", None), "progress": PROGRESS},
        skip=("manifest no photos",),  # the ratio of no classes is NaN
    ),
    "kpipe.data.augment_minority": Row(RESAMPLING),
    "kpipe.data.oversample": Row(RESAMPLING),
    "kpipe.data.undersample": Row(RESAMPLING),
    "kpipe.data.oversample of a manifest": Row({**RESAMPLING, "photos": MANIFEST}),
    "kpipe.data.class_shares": Row(
        {
            "labels": ("labels", [0, 1, 1]),
            "sampling": ("anything", None),
            "class_weight": ("mapping", {0: 1.0, 1: 2.0}),
        }
    ),
    "kpipe.data.class_weight": Row(
        {
            "labels": ("labels", [0, 1, 1]),
            "classes": ("names", ["a", "b"]),
            "method": ("name", "effective"),
            "beta": ("fraction", 0.9),
        }
    ),
    "kpipe.data.contact_sheet": Row(
        {
            "manifest": MANIFEST,
            "images": ("images", Made(lambda things: things.images.astype(np.uint8))),
            "augmenter": ("anything", Augmenter()),
            "mixer": ("anything", None),
            "seed": ("seed", 0),
            "rows": ("count", 2),
            "views": ("count", 1),
        }
    ),
    "kpipe.data.conversion_notes": Row({"manifest": UNSPLIT, "background": ("color", "white")}),
    "kpipe.data.dataset": Row(
        {
            "manifest": MANIFEST,
            "split": ("name", "train"),
            "image_size": ("size", 8),
            "batch_size": ("count", 2),
            "images": ("images", None),
            "training": ("anything", TrainingOptions(1)),
            "one_hot": ("flag", False),
            "background": ("color", "white"),
        },
        use=first_batch,
    ),
    "kpipe.data.decode": Row(
        {
            "manifest": MANIFEST,
            "image_size": ("size", 8),
            "folder": ("new_folder", "decoded"),
            "progress": PROGRESS,
            "background": ("color", "white"),
        }
    ),
    "kpipe.data.from_csv": Row(
        {
            "path": ("path", Made(lambda things: things.csv)),
            "image": ("name", "file"),
            "label": ("name", "kind"),
            "root": ("path", None),
            "classes": ("classes", None),
            "known_digests": PROGRESS,
            **READING,
        }
    ),
    "kpipe.data.from_dataframe": Row(
        {
            "df": ("table", Made(lambda things: things.table)),
            "image": ("name", "file"),
            "label": ("name", "kind"),
            "root": ("path", None),
            "classes": ("classes", None),
            **READING,
        }
    ),
    "kpipe.data.from_folder": Row({"root": ROOT, "known_digests": PROGRESS, **READING}),
    "kpipe.data.list_csv_files": Row(
        {
            "path": ("path", Made(lambda things: things.csv)),
            "image": ("name", "file"),
            "root": ("path", None),
            "label": ("name", "kind"),
            "further_columns": ("names", ("kind",)),
        }
    ),
    "kpipe.data.load_image": Row(
        {
            "path": ("path", Made(lambda things: things.photo)),
            "image_size": ("size", 8),
            "background": ("color", "white"),
        }
    ),
    "kpipe.data.merge": Row(
        {"manifests": ("manifests", Made(lambda things: [things.unsplit])), **READING}
    ),
    "kpipe.data.problem_table": Row({"rows": ("names", [("a.jpg", "truncated", "detail")])}),
    "kpipe.data.split": Row(
        {
            "manifest": UNSPLIT,
            "fractions": ("fractions", (0.5, 0.25, 0.25)),
            "seed": ("seed", 0),
            "group": ("name", None),
            "previous": ("path", None),
            "min_photos": ("count", 1),
        }
    ),
    "kpipe.data.steps": Row(
        {
            "manifest": MANIFEST,
            "split": ("name", "train"),
            "batch_size": ("count", 2),
            "sampling": ("anything", None),
        }
    ),
    "kpipe.report.Progress": Row({"console": ("anything", Console(quiet=True))}),
    "kpipe.report.collect_run": Row({"folder": ("path", Made(run_folder))}),
    "kpipe.report.models_table": Row({"folder": ("path", Made(run_folder))}),
    "kpipe.report.write_audit": Row(
        {
            "page": ("new_folder", Path("check.html")),
            "title": ("text", "photos"),
            "manifest": UNSPLIT,
            "audit": ("anything", Made(lambda things: audit(things.unsplit))),
        }
    ),
    "kpipe.report.write_report": Row(
        {"folder": ("path", Made(run_folder)), "page": ("new_folder", Path("page.html"))}
    ),
}


def save(things: Things) -> Path:
    things.unsplit.save("manifest")
    return Path("manifest")


def _stage(kind: type, **right: Any) -> Row:
    """Each field of a stage, with wrong values of its kind and of all others."""
    names = [field.name for field in dataclasses.fields(kind)]
    default = kind(**right)
    return Row(
        {name: ("field", getattr(default, name)) for name in names},
        use=lambda made: made.validation_errors(),
    )


ROWS |= {
    f"kpipe.stages.{name}": _stage(getattr(stages, name), **right)
    for name, right in {
        "Augment": {},
        "Balance": {},
        "ClusterWeights": {},
        "Data": {"source": "photos"},
        "Distill": {"backbone": "MobileNet"},
        "Ensemble": {},
        "Export": {},
        "FilterPrune": {},
        "FineTune": {"backbone": "MobileNet"},
        "MagnitudePrune": {},
        "QuantizeAware": {},
    }.items()
}
