"""Right calls of `kpipe.sparsity` and `kpipe.train`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras

from kpipe import sparsity, train
from tests.wrong_arguments.things import Things, classifier
from tests.wrong_arguments.walk import Made, Row

__all__ = ["RESULTS", "ROWS"]

LITE = Row(
    {
        "include_top": ("flag", False),
        "weights": ("path", None),
        "input_tensor": ("anything", None),
        "input_shape": ("shape", (32, 32, 3)),
        "pooling": ("name", None),
        "classes": ("count", 2),
        "name": ("text", "net"),
    }
)

# Classes of which kpipe makes the objects, base classes, and names that are not functions.
RESULTS = {
    *(f"kpipe.train.{name}" for name in ("Block", "FitResult", "Schedule", "StatefulCallback")),
    *(f"kpipe.train.{name}" for name in ("SwitchTrigger", "TrainableLayers", "CachedFeatures")),
}

MODEL = ("model", Made(lambda things: things.model))
FRESH = ("model", Made(lambda things: classifier()))
DATASET = ("batches", Made(lambda things: things.batches))
DATA = ("anything", Made(lambda things: things.training_data))
CALLBACK = ("function", None)
ONE_EPOCH = train.TrainingConfig(1)
TFMOT = {
    "model": MODEL,
    "data": DATASET,
    "epochs": ("count", 1),
    "steps_per_epoch": ("count", 1),
    "settings": ("anything", sparsity.TrainingSettings()),
    "folder": ("new_folder", None),
}


def stem(things: Things) -> keras.Model:
    return train.split_frozen(frozen(things))[0]


def frozen(things: Things) -> keras.Model:
    model = classifier()
    train.unfreeze(model, last=0)
    return model


def twin(things: Things) -> Any:
    return sparsity.to_tf_keras(things.model)


def torch_file() -> Path:
    """No tensors, as `torch.save({}, path)` wrote them before version 1.6."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])
    Path("weights.pth").write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    return Path("weights.pth")


def checked_later(settings: Any) -> None:
    """Settings that the functions check which take them."""


def enter(context: Any) -> None:
    with context:
        pass


ROWS = {
    # --------------------------------------------------------------------------------- sparsity
    "kpipe.sparsity.ConstantSparsity": Row(
        {"begin": ("fraction", 0.0), "updates": ("count", 2)}, use=checked_later
    ),
    "kpipe.sparsity.KeepZeros": Row({"model": MODEL}),
    "kpipe.sparsity.PolynomialSparsity": Row(
        {"ramp": ("fraction", 0.5), "updates": ("count", 2)}, use=checked_later
    ),
    "kpipe.sparsity.TrainingSettings": Row(
        {
            "optimizer": ("name", "adam"),
            "learning_rate": ("number", 1e-3),
            "learning_rate_schedule": ("name", "constant"),
            "class_weight": ("mapping", None),
            "seed": ("seed", 0),
            "on_epoch": CALLBACK,
        },
        use=checked_later,
    ),
    "kpipe.sparsity.cluster_weights": Row(
        {**TFMOT, "clusters": ("count", 2), "start": ("name", "linear")}
    ),
    "kpipe.sparsity.count_unique_weights": Row({"model": MODEL}),
    "kpipe.sparsity.layer_mapping": Row({"model": MODEL}),
    "kpipe.sparsity.measure_sparsity": Row({"model": MODEL}),
    "kpipe.sparsity.prune_magnitude": Row(
        {
            **TFMOT,
            "sparsity": ("fraction", 0.5),
            "schedule": ("name", "constant"),
            "m_by_n": ("size", None),
            "block_size": ("size", (1, 1)),
        }
    ),
    "kpipe.sparsity.to_keras": Row({"model": ("model", Made(twin)), "template": MODEL}),
    "kpipe.sparsity.to_tf_keras": Row({"model": MODEL}),
    "kpipe.sparsity.train_quantized": Row(TFMOT),
    # ------------------------------------------------------------------------------------ train
    "kpipe.train.AtEpoch": Row({"epoch": ("count", 1)}),
    "kpipe.train.Constant": Row({}),
    "kpipe.train.CosineDecay": Row({"warmup": ("fraction", 0.1), "final": ("fraction", 0.0)}),
    "kpipe.train.Distiller": Row(
        {
            "student": FRESH,
            "teacher": MODEL,
            "sample": ("images", Made(lambda things: [things.images])),
            "feature_teacher": ("model", None),
            "soft_target_weight": ("number", 1.0),
            "feature_weight": ("number", 1.0),
            "layer": ("name", None),
        }
    ),
    "kpipe.train.EfficientNetLite0": LITE,
    "kpipe.train.EfficientNetLite1": LITE,
    "kpipe.train.EfficientNetLite2": LITE,
    "kpipe.train.ExponentialDecay": Row({"final": ("fraction", 0.1)}),
    "kpipe.train.FeatureConfig": Row(
        {
            "views": ("count", 1),
            "seed": ("seed", 0),
            "dtype": ("name", "float16"),
            "folder": ("path", None),
            "source": ("anything", None),
            "rows": ("images", None),
        }
    ),
    "kpipe.train.LayerDecay": Row({"decay": ("fraction", 0.5), "backbone": ("fraction", 0.5)}),
    "kpipe.train.LayerwiseSWATS": Row(
        {"tolerance": ("number", 1e-9)}, free=("learning_rate", "name")
    ),
    "kpipe.train.OnPlateau": Row(
        {
            "monitor": ("name", "val_loss"),
            "patience": ("count", 2),
            "min_delta": ("number", 0.0),
            "mode": ("name", "min"),
        }
    ),
    "kpipe.train.OneCycle": Row(dict.fromkeys(("rise", "initial", "final"), ("fraction", 0.5))),
    "kpipe.train.Phase": Row(
        {
            "config": ("anything", ONE_EPOCH),
            "last": ("count", 0),
            "features": ("anything", None),
            "freeze_norm": ("flag", False),
            "layer_decay": ("fraction", 0.5),
            "backbone_factor": ("fraction", 0.5),
        }
    ),
    "kpipe.train.ReduceOnPlateau": Row(
        {
            "factor": ("fraction", 0.1),
            "patience": ("count", 2),
            "min_delta": ("number", 0.0),
            "min_lr": ("number", 0.0),
        }
    ),
    "kpipe.train.SWATS": Row({"tolerance": ("number", 1e-9)}),
    "kpipe.train.StepDecay": Row({"at": ("weights", (0.5,)), "factor": ("fraction", 0.1)}),
    "kpipe.train.SwitchOptimizer": Row(
        {"to": ("name", "sgd"), "when": ("anything", train.AtEpoch(1))}
    ),
    "kpipe.train.TrainingConfig": Row(
        {
            "epochs": ("count", 2),
            "optimizer": ("name", "adam"),
            "learning_rate": ("number", 1e-3),
            "schedule": ("name", "cosine"),
            "switch_to": ("name", "sgd"),
            "switch_learning_rate": ("number", 1e-3),
            "switch_when": ("anything", train.AtEpoch(1)),
            "class_weight": ("mapping", None),
            "label_smoothing": ("fraction", 0.0),
            "ema_momentum": ("fraction", None),
            "patience": ("count", None),
            "weight_decay": ("number", None),
            "clip_norm": ("number", None),
        }
    ),
    "kpipe.train.TrainingData": Row(
        {
            "batches": ("function", lambda epoch: None),
            "steps_per_epoch": ("count", 2),
            "validation": ("", None),
            "batch_names": CALLBACK,
        }
    ),
    "kpipe.train.adapt_bn_momentum": Row({"model": FRESH, "steps_per_epoch": ("count", 2)}),
    "kpipe.train.backbone": Row(
        {
            "name": ("name", "MobileNet"),
            "image_size": ("size", 32),
            "weights": ("path", None),
        }
    ),
    "kpipe.train.backbone_names": Row({}),
    "kpipe.train.classifier": Row(
        {
            "base": ("model", Made(lambda things: things.other_models["of images"])),
            "classes": ("count", 2),
            "dropout": ("fraction", 0.2),
            "seed": ("seed", 0),
        }
    ),
    "kpipe.train.extract_features": Row(
        {
            "stem": ("model", Made(stem)),
            "data": DATA,
            "config": ("anything", train.FeatureConfig()),
            "folder": ("new_folder", "features"),
            "progress": CALLBACK,
        }
    ),
    "kpipe.train.find_blocks": Row({"model": MODEL}),
    "kpipe.train.fit": Row(
        {
            "model": FRESH,
            "data": DATA,
            "config": ("anything", ONE_EPOCH),
            "folder": ("new_folder", None),
            "callbacks": ("anything", ()),
        }
    ),
    "kpipe.train.fit_phases": Row(
        {
            "model": FRESH,
            "data": DATA,
            "phases": ("anything", (train.Phase(ONE_EPOCH),)),
            "folder": ("new_folder", None),
            "callbacks": ("function", lambda phase, total: ()),
            "progress": CALLBACK,
        }
    ),
    "kpipe.train.frozen_output": Row({"model": MODEL}),
    "kpipe.train.folded_inference": Row({"model": MODEL}),
    "kpipe.train.fused_normalization": Row({"model": MODEL}, use=enter),
    "kpipe.train.optimizer": Row(
        {
            "kind": ("name", "adam"),
            "learning_rate": ("number", 1e-3),
            "schedule": ("name", "cosine"),
            "steps": ("count", 3),
        }
    ),
    "kpipe.train.optimizer_names": Row({}),
    "kpipe.train.plan_unfreezing": Row(
        {"model": MODEL, "phases": ("count", 2), "last": ("count", None)}
    ),
    "kpipe.train.read_torch_file": Row({"path": ("path", Made(lambda things: torch_file()))}),
    "kpipe.train.remove_unused_features": Row({"folder": ("path", Path("nothing"))}),
    "kpipe.train.resize": Row({"model": MODEL, "image_size": ("size", 12)}),
    "kpipe.train.schedule_names": Row({}),
    "kpipe.train.soft_labels": Row(
        {"batches": DATASET, "teacher": MODEL, "teacher_weight": ("fraction", 0.5)},
    ),
    "kpipe.train.split_frozen": Row({"model": ("model", Made(frozen))}),
    "kpipe.train.unfreeze": Row(
        {"model": FRESH, "last": ("count", 0), "freeze_norm": ("flag", False)}
    ),
    "kpipe.train.update_bn": Row({"model": FRESH, "batches": DATASET}),
    "kpipe.train.weights_digest": Row({"model": MODEL}),
}
