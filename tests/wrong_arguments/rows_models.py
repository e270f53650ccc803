"""Right calls of `kpipe.ensemble`, `kpipe.lite` and `kpipe.prune`."""

from __future__ import annotations

import keras
import numpy as np

from kpipe import prune
from tests.wrong_arguments.things import Things
from tests.wrong_arguments.walk import Made, Row

__all__ = ["RESULTS", "ROWS"]

# Classes of which kpipe makes the objects, base classes, and names that are not functions.
RESULTS = {
    *(f"kpipe.ensemble.{name}" for name in ("Assessment", "Score", "TemperatureFit")),
    *(f"kpipe.lite.{name}" for name in ("Benchmark", "Evaluation", "ImageDifference")),
    *(f"kpipe.lite.{name}" for name in ("Prediction", "QuantizationTrial")),
    "kpipe.lite.SelectiveQuantization",
    *(f"kpipe.prune.{name}" for name in ("CRITERIA", "Candidate", "ChannelConstraints", "Group")),
    *(f"kpipe.prune.{name}" for name in ("LayerCall", "LayerChange", "Plan", "PruneResult")),
    *(f"kpipe.prune.{name}" for name in ("Ranking", "ResidualBlock", "Round", "Rule")),
    *(f"kpipe.prune.{name}" for name in ("Sensitivity", "new_channels", "same_channels")),
}

MODEL = ("model", Made(lambda things: things.model))
IMAGES = ("images", Made(lambda things: things.images))
BATCHES = ("batches", Made(lambda things: [(things.images, things.labels)]))
FILE = ("content", Made(lambda things: str(things.tflite)))
SCORE = ("score", lambda model: 0.5)
CALLBACK = ("function", None)
IGNORED = ("names", ())
TWO = Made(lambda things: [things.model, things.model])
RUN = {"threads": ("count", 1), "runs": ("count", 2)}


def plan_of(things: Things) -> prune.Plan:
    return prune.plan(things.model, {"conv": [0]})


PROBABILITIES = ("images", Made(lambda things: np.eye(3)[things.labels] * 0.7 + 0.1))
LABELS = ("labels", Made(lambda things: things.labels))
CLASSES = ("names", [["a", "b", "c"], ["c", "b", "a"]])
PREDICTIONS = {
    "probabilities": ("images", Made(lambda things: np.full((2, len(things.labels), 3), 1 / 3))),
    "labels": ("labels", Made(lambda things: things.labels)),
}

ROWS = {
    "kpipe.ensemble.apply_temperature": Row({"model": MODEL, "temperature": ("number", 1.5)}),
    "kpipe.ensemble.calibrate": Row({"model": MODEL, "data": BATCHES}),
    "kpipe.ensemble.calibration_error_by_chance": Row(
        {"probabilities": PROBABILITIES, "bins": ("count", 15)}
    ),
    "kpipe.ensemble.coverage_threshold": Row(
        {"probabilities": PROBABILITIES, "coverage": ("fraction", 0.9)}
    ),
    **dict.fromkeys(
        ("kpipe.ensemble.debiased_calibration_error", "kpipe.ensemble.expected_calibration_error"),
        Row({"probabilities": PROBABILITIES, "labels": LABELS, "bins": ("count", 15)}),
    ),
    "kpipe.ensemble.fit_temperature": Row({"probabilities": PROBABILITIES, "labels": LABELS}),
    "kpipe.ensemble.assess": Row(PREDICTIONS),
    "kpipe.ensemble.average": Row(
        {"models": ("models", TWO), "weights": ("weights", [1, 3]), "classes": CLASSES}
    ),
    "kpipe.ensemble.fit_weights": Row(PREDICTIONS),
    "kpipe.ensemble.geometric_average": Row(
        {"models": ("models", TWO), "weights": ("weights", [1, 3]), "classes": CLASSES}
    ),
    "kpipe.ensemble.predict_members": Row(
        {
            "models": ("", TWO),  # checked as those of `average`
            "data": ("batches", Made(lambda things: things.batches)),
            "classes": ("", None),
        }
    ),
    "kpipe.ensemble.select": Row({**PREDICTIONS, "draws": ("count", 5)}),
    "kpipe.ensemble.soup": Row({"models": ("models", TWO)}),
    "kpipe.ensemble.greedy_soup": Row(
        {"models": ("models", TWO), "loss": SCORE, "finish": CALLBACK},
    ),
    "kpipe.ensemble.vote": Row({"models": ("models", TWO), "classes": CLASSES}),
    # ------------------------------------------------------------------------------------- lite
    "kpipe.lite.Classifier": Row(
        {
            "path": FILE,
            "labels": ("names", ["a", "b", "c"]),
            "threads": ("count", 1),
            "background": ("color", "white"),
            "threshold": ("fraction", None),
            "members": ("flag", False),
        }
    ),
    "kpipe.lite.LiteModel": Row({"source": FILE, "threads": ("count", 1)}),
    "kpipe.lite.add_metadata": Row(
        {
            "tflite": FILE,
            "labels": ("names", ["a", "b", "c"]),
            **dict.fromkeys(("name", "description", "version", "author"), ("text", "x")),
            "license": ("text", "CC0"),
            "mean": ("weights", [0.0]),
            "std": ("weights", [1.0]),
            "score_threshold": ("fraction", None),
        }
    ),
    "kpipe.lite.benchmark": Row({"path": FILE, **RUN}),
    "kpipe.lite.compare": Row({"paths": ("contents", Made(lambda things: [things.tflite])), **RUN}),
    "kpipe.lite.convert": Row(
        {
            "model": MODEL,
            "quantize": ("name", None),
            "calibration": ("images", None),
            "io_dtype": ("name", "uint8"),
        }
    ),
    "kpipe.lite.convert to int8": Row(
        {"model": ("", MODEL[1]), "quantize": ("", "int8"), "calibration": IMAGES},
        free=("io_dtype",),
    ),
    "kpipe.lite.evaluate": Row(
        {
            "path": FILE,
            "data": BATCHES,
            "workers": ("count", 1),
            "reference": ("images", None),
            "differences": ("count", 1),
        }
    ),
    "kpipe.lite.latency": Row({"model": MODEL, **RUN, "quantize": ("name", None)}),
    "kpipe.lite.quantize_selectively": Row(
        {
            "model": ("", MODEL[1]),
            "calibration": ("", IMAGES[1]),
            "correct": ("score", lambda content: np.ones(4, bool)),
            "tolerance": ("fraction", 0.01),
            "max_float_ops": ("count", 1),
        }
    ),
    # ------------------------------------------------------------------------------------ prune
    "kpipe.prune.Selection": Row(
        {
            "round_to": ("count", 1),
            "min_filters_fraction": ("fraction", 0.1),
            "normalize": ("name", None),
            "max_pruning_ratio": ("mapping", {}),
            "ignored_layers": IGNORED,
            "blocks": ("flag", True),
            "data": ("", None),
            "seed": ("seed", 0),
        }
    ),
    "kpipe.prune.count_macs": Row({"model": MODEL}),
    "kpipe.prune.count_params": Row({"model": MODEL}),
    "kpipe.prune.kind_of": Row({"thing": ("anything", keras.layers.Dense(2))}),
    "kpipe.prune.plan": Row(
        {"model": MODEL, "remove": ("removed", {"conv": [0]}), "ignored_layers": IGNORED}
    ),
    "kpipe.prune.protect_channels": Row({"reason": ("text", "it mixes channels")}),
    "kpipe.prune.prunable_fraction": Row({"model": MODEL}),
    "kpipe.prune.prune_filters": Row(
        {
            "model": MODEL,
            "macs": ("fraction", None),
            "params": ("fraction", 0.8),
            "latency_ms": ("number", None),
            "latency": ("score", None),
            "finetune": ("finetune", lambda model, number: None),
            "evaluate": SCORE,
            "loss": ("score", None),
            "criterion": ("name", "l1"),
            "rounds": ("count", 1),
            "tolerance": ("number", None),
            "selection": ("anything", prune.Selection(round_to=1)),
            "calibration": ("images", None),
            "on_round": CALLBACK,
            "progress": CALLBACK,
            "folder": ("new_folder", None),
        }
    ),
    "kpipe.prune.rank": Row(
        {
            "model": MODEL,
            "criterion": ("name", "l1"),
            "data": ("batches", None),
            "normalize": ("name", None),
            "ignored_layers": IGNORED,
            "seed": ("seed", 0),
        }
    ),
    "kpipe.prune.rank with data": Row(
        {"model": ("", MODEL[1]), "criterion": ("", "taylor"), "data": BATCHES},
        free=("normalize", "ignored_layers", "seed"),
    ),
    "kpipe.prune.rank by activation": Row(
        {"model": MODEL, "criterion": ("", "apoz"), "data": BATCHES},
        free=("normalize", "ignored_layers", "seed"),
    ),
    "kpipe.prune.rank_blocks": Row(
        {"model": ("model", Made(lambda things: things.residual)), "loss": SCORE}
    ),
    "kpipe.prune.register_rule": Row(
        {
            "kind": ("anything", "layers.NoSuchLayer"),
            "rule": ("anything", prune.Rule(prune.same_channels)),
        }
    ),
    "kpipe.prune.remove_blocks": Row(
        {
            "model": ("model", Made(lambda things: things.residual)),
            "blocks": ("names", ["total"]),
            "loss": ("score", None),
        }
    ),
    "kpipe.prune.remove_blocks by number": Row(
        {
            "model": ("", Made(lambda things: things.residual)),
            "blocks": ("count", 1),
            "loss": SCORE,
        }
    ),
    "kpipe.prune.remove_filters": Row({"model": MODEL, "plan": ("anything", Made(plan_of))}),
    "kpipe.prune.residual_blocks": Row({"model": ("model", Made(lambda things: things.residual))}),
    "kpipe.prune.scan_sensitivity": Row(
        {
            "model": MODEL,
            "evaluate": SCORE,
            "fractions": ("weights", (0.5,)),
            "criterion": ("name", "l1"),
            "data": ("batches", None),
            "ignored_layers": IGNORED,
            "calibration": ("images", None),
            "progress": CALLBACK,
        }
    ),
    "kpipe.prune.Sensitivity.max_pruning_ratio": Row(
        {
            "self": ("", prune.Sensitivity(0.9, {"conv": {0.5: 0.8}})),
            "tolerance": ("number", 0.1),
        }
    ),
    "kpipe.prune.refit_weights": Row(
        {
            "model": MODEL,
            "smaller": ("model", Made(lambda t: prune.remove_filters(t.model, plan_of(t)))),
            "plan": ("anything", Made(plan_of)),
            "images": ("images", Made(lambda things: [things.images])),
        }
    ),
    "kpipe.prune.shift_statistics": Row(
        {
            "model": MODEL,
            "smaller": ("model", Made(lambda t: prune.remove_filters(t.model, plan_of(t)))),
            "plan": ("anything", Made(plan_of)),
            "images": ("images", Made(lambda things: [things.images])),
        }
    ),
}
