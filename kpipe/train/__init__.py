"""Training: backbones, what of them trains, optimizers, and a fit that cannot be lost."""

from __future__ import annotations

from kpipe._lazy import lazy

__all__ = [
    "AtEpoch",
    "EfficientNetLite0",
    "FitPlan",
    "FitResult",
    "Moment",
    "OnPlateau",
    "StatefulCallback",
    "SwitchOptimizer",
    "backbone",
    "backbone_names",
    "classifier",
    "fit",
    "optimizer",
    "optimizer_names",
    "quicken",
    "read_torch_file",
    "recalibrate",
    "unfreeze",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "AtEpoch": "switching",
        "EfficientNetLite0": "lite0",
        "FitPlan": "planning",
        "FitResult": "fitting",
        "Moment": "switching",
        "OnPlateau": "switching",
        "StatefulCallback": "switching",
        "SwitchOptimizer": "switching",
        "backbone": "backbones",
        "backbone_names": "catalog",
        "classifier": "backbones",
        "fit": "fitting",
        "optimizer": "optimizers",
        "optimizer_names": "optimizers",
        "quicken": "normalization",
        "read_torch_file": "torch_file",
        "recalibrate": "normalization",
        "unfreeze": "freezing",
    },
)
