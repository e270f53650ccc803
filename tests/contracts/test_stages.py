"""What every stage keeps to; a new stage joins by its rows in the three tables below."""

from __future__ import annotations

import dataclasses
import pickle
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpipe.stages
from kpipe import Pipeline
from kpipe.core.fields import Between
from kpipe.core.fingerprint import fingerprint
from kpipe.core.stage import Need, Stage
from kpipe.data import Augmenter, Mixer, Sampling
from kpipe.data.balancing.class_weights import Weighting
from kpipe.data.balancing.sampling import Method
from kpipe.errors import DataError, PipelineError
from kpipe.prune import CRITERIA
from kpipe.sparsity import TrainingSettings
from kpipe.stages import Augment, Balance, Data, Export, FilterPrune, FineTune
from kpipe.stages.training.recipe import Recipe
from kpipe.train import optimizer_names

# A valid stage of each kind.
_REQUIRED = {"Data": ["photos"], "FineTune": ["MobileNetV2"], "Distill": ["MobileNetV2"]}
EXAMPLES: dict[str, Stage] = {
    name: getattr(kpipe.stages, name)(*_REQUIRED.get(name, [])) for name in kpipe.stages.__all__
}

# For each field, another valid value.
CHANGES: dict[str, dict[str, Any]] = {
    "Data": {
        "source": "other",
        "image_size": 48,
        "split": (0.6, 0.2, 0.2),
        "image": "file",
        "label": "kind",
        "root": "photos",
        "classes": {"0": "sound"},
        "csv": {"sep": ";"},
        "group": "patient",
        "previous": "manifest.csv",
        "min_photos": 2,
        "background": "black",
        "max_unreadable": 0.5,
    },
    "Balance": {
        "method": "oversample",
        "weighting": "effective",
        "beta": 0.9,
        "ratio": 0.5,
        "and_class_weight": True,
    },
    "Augment": {
        "flip": "vertical",
        "rotate": 0.2,
        "brightness": 0.2,
        "contrast": 0.2,
        "color": 0,  # saturation and hue in one
        "blur": 0.2,
        "crop": 0.5,
        "translate": 0.1,
        "zoom": 0.1,
        "saturation": 0.2,
        "hue": 0.05,
        "noise": 0.05,
        "jpeg": 50,
        "erase": 0.2,
        "grid_mask": 0.2,
        "channel_shuffle": 0.1,
        "rand_augment": 0.3,
        "aug_mix": 0.3,
        "mix_up": 0.2,
        "cut_mix": 1,
        "fourier_mix": 0.5,
    },
    "FineTune": {
        "backbone": "MobileNet",
        "alpha": 0.35,
        "weights": None,
        "head_epochs": 3,
        "head_learning_rate": 0.01,
        "cached_views": 2,
        "unfreeze_phases": 2,
        "layer_decay": 0.9,
        "backbone_factor": 0.1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "effort": "best",
        "dropout": 0.5,
        "label_smoothing": 0.1,
        "optimizer": "adamw",
        "learning_rate": 0.1,
        "switch_to": "sgd",
        "switch_when": 3,
        "switch_learning_rate": 0.01,
        "swats_tolerance": 1e-9,
        "schedule": "step",
        "ema_momentum": 0.99,
        "patience": 3,
        "epochs": 9,
        "low_res_size": 32,
        "full_res_epochs": 1,
        "batch_size": 8,
    },
    "Ensemble": {
        "members": 2,
        "combine": "soup",
        "vary": ("resample", "snapshot"),
        "cycle_epochs": 2,
        "on_failure": "go_on",
    },
    "Distill": {"teacher": "ensemble", "soft_target_weight": 1.0, "unlabelled": "more"},
    "FilterPrune": {
        "criterion": "l2",
        "params": 0.3,
        "latency_of": None,
        "rounds": 2,
        "tolerance": 0.02,
        "sensitivity": 0.05,
        "round_to": 4,
        "min_filters_fraction": 0.2,
        "blocks": False,
        "epochs": 2,
        "last_epochs": 3,
        "teacher": "model",
        "soft_target_weight": 0.0,
        "feature_weight": 1.0,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "warmup": 0.1,
        "batch_size": 8,
    },
    "MagnitudePrune": {
        "sparsity": 0.8,
        "schedule": "constant",
        "epochs": 1,
        "last_epochs": 2,
        "teacher": "ensemble",
        "soft_target_weight": 2.0,
        "feature_weight": 1.0,
        "learning_rate": 0.1,
        "batch_size": 8,
    },
    "ClusterWeights": {
        "clusters": 8,
        "epochs": 1,
        "teacher": "ensemble",
        "soft_target_weight": 2.0,
        "learning_rate": 0.1,
        "batch_size": 8,
    },
    "QuantizeAware": {
        "epochs": 1,
        "teacher": None,
        "soft_target_weight": 0.0,
        "learning_rate": 0.1,
        "batch_size": 8,
    },
    "Export": {
        "quantize": None,
        "tolerance": 0.5,
        "int8_tolerance": 0.5,
        "calibration": 10,
        "temperature": False,
        "coverage": 0.9,
        "license": "CC0",
        "note": "Photos of 2024.",
    },
}


# Fields that exclude one of `CHANGES`, changed alone.
INSTEAD: dict[str, dict[str, Any]] = {
    "FilterPrune": {"macs": 0.3, "latency_ms": 2.0},
    # They go with pretrained weights, with "cosine" and with frozen layers.
    "FineTune": {"freeze_norm": True, "warmup": 0.1, "cached_phases": "all", "retrain_last": 40},
}
for _table in (CHANGES, INSTEAD):
    _table["Distill"] = {**_table["FineTune"], **_table.get("Distill", {})}

NAN = float("nan")
# Stage, field, bad value, what the problem must say.
WRONG = [
    ("Data", "image_size", 15, "between 16 and 4096"),
    ("Data", "image_size", "224", "a whole number"),
    ("Data", "image_size", 224.0, "a whole number"),
    ("Data", "image_size", True, "a whole number"),
    ("Data", "split", (0.7, 0.3), "a tuple of 3"),
    ("Data", "split", (0.7, 0.2, 0.2), "add up to 1"),
    ("Data", "split", (0.7, 0.3, 0.0), "both excluded"),
    ("Data", "split", (0.7, 0.3, NAN), "both excluded"),
    ("Data", "image", "photo", "both columns"),
    ("Data", "label", "kind", "both columns"),
    ("Data", "classes", {0: "sound"}, "a dict"),
    ("Data", "classes", {"0": 1}, "a dict"),
    ("Data", "csv", [("sep", ";")], "a dict"),
    ("Data", "csv", {"image": "photo"}, "fields of Data"),
    ("Data", "group", "patient", "use a CSV"),
    ("Data", "min_photos", 0, "1 or more"),
    ("Data", "background", "whit", "did you mean 'white'?"),
    ("Data", "max_unreadable", 1.5, "between 0 and 1"),
    ("Balance", "method", "class_wieght", "did you mean 'class_weight'?"),
    ("Balance", "method", None, "'class_weight'"),
    ("Balance", "weighting", "balancd", "did you mean 'balanced'?"),
    ("Balance", "beta", 1.0, "both excluded"),
    ("Balance", "beta", NAN, "both excluded"),
    ("Balance", "ratio", 0, "between 0 and 1 and above 0"),
    ("Balance", "ratio", 1.5, "between 0 and 1"),
    ("Balance", "and_class_weight", 1, "True or False"),
    ("Augment", "flip", "horizontl", "did you mean 'horizontal'?"),
    ("Augment", "flip", True, "'horizontal'"),
    ("Augment", "rotate", 0.6, "between 0 and 0.5"),
    ("Augment", "brightness", -0.1, "between 0 and 1"),
    ("Augment", "contrast", NAN, "between 0 and 1"),
    ("Augment", "color", "0.1", "a number"),
    ("Augment", "blur", True, "a number"),
    ("Augment", "crop", 0.05, "between 0.1 and 1"),
    ("Augment", "translate", 0.6, "between 0 and 0.5"),
    ("Augment", "zoom", 1, "between 0 and 0.9"),
    ("Augment", "saturation", 0.2, "write color=0"),
    ("Augment", "hue", 0.2, "write color=0"),
    ("Augment", "noise", -0.1, "between 0 and 1"),
    ("Augment", "jpeg", 0, "between 1 and 100"),
    ("Augment", "erase", 2, "between 0 and 1"),
    ("Augment", "grid_mask", "0.1", "a number"),
    ("Augment", "channel_shuffle", NAN, "between 0 and 1"),
    ("Augment", "rand_augment", 9, "between 0 and 1"),
    ("Augment", "aug_mix", 3, "between 0 and 1"),
    ("Augment", "mix_up", 0.01, "between 0.05 and 10"),
    ("Augment", "cut_mix", 1.5, "between 0.05 and 1"),
    ("Augment", "fourier_mix", -1, "between 0.05 and 10"),
    ("FineTune", "backbone", "MobilNetV2", "did you mean 'MobileNetV2'?"),
    ("FineTune", "backbone", "efficientnetlite0", "did you mean 'EfficientNetLite0'?"),
    ("FineTune", "backbone", None, "a string"),
    ("FineTune", "alpha", 0, "both excluded"),
    ("FineTune", "weights", 3, "a string"),
    ("FineTune", "retrain_last", -1, "0 or more"),
    ("FineTune", "dropout", 1.0, "between 0 and 0.95"),
    ("FineTune", "optimizer", "adamm", "did you mean 'adam'?"),
    ("FineTune", "learning_rate", 0, "above 0"),
    ("FineTune", "learning_rate", float("inf"), "above 0"),
    ("FineTune", "switch_to", "sdg", "did you mean 'sgd'?"),
    ("FineTune", "switch_when", "plateu", "did you mean 'plateau'?"),
    ("FineTune", "switch_when", 0, "1 or more"),
    ("FineTune", "switch_learning_rate", -1.0, "above 0"),
    ("FineTune", "swats_tolerance", 0.0, "above 0"),
    ("FineTune", "head_epochs", -1, "0 or more"),
    ("FineTune", "head_learning_rate", 0.0, "above 0"),
    ("FineTune", "cached_views", 1.5, "whole number"),
    ("FineTune", "cached_phases", "al", "did you mean 'all'?"),
    ("FineTune", "unfreeze_phases", 0, "1 or more"),
    ("FineTune", "layer_decay", 1.5, "between 0.01 and 1"),
    ("FineTune", "backbone_factor", 0, "between 0.001 and 1"),
    ("FineTune", "freeze_norm", 1, "True or False"),
    ("FineTune", "warmup", 1.0, "between 0 and 0.9"),
    ("FineTune", "weight_decay", -0.1, "0 or more"),
    ("FineTune", "clip_norm", 0, "above 0"),
    ("FineTune", "effort", "bset", "did you mean 'best'?"),
    ("FineTune", "label_smoothing", 1.0, "between 0 and 0.95"),
    ("FineTune", "ema_momentum", 1.0, "between 0 and 1"),
    ("FineTune", "patience", 0, "1 or more"),
    ("FineTune", "low_res_size", 8, "16 or more"),
    ("FineTune", "full_res_epochs", 0, "1 or more"),
    ("FineTune", "schedule", "cosin", "did you mean 'cosine'?"),
    ("FineTune", "epochs", 0, "1 or more"),
    ("FineTune", "epochs", True, "a whole number"),
    ("FineTune", "batch_size", 2.5, "a whole number"),
    ("Ensemble", "members", 1, "between 2 and 20"),
    ("Ensemble", "members", (), "a list of 0"),
    ("Ensemble", "members", (FineTune("VGG16"),), "a list of 1"),
    ("Ensemble", "members", (FineTune("VGG16"), "VGG19"), "members[1] is 'VGG19', not a FineTune"),
    ("Ensemble", "members", (FineTune("VGG16"), FineTune("VGG")), "members[1]: backbone='VGG'"),
    ("Ensemble", "combine", "avrage", "did you mean 'average'?"),
    ("Distill", "teacher", None, "'auto'"),
    ("Distill", "soft_target_weight", 0, "above 0"),
    ("Ensemble", "vary", "seeds", "did you mean 'seed'?"),
    ("Ensemble", "vary", (), "all members are equal"),
    ("Ensemble", "vary", ("seed", 3), "a tuple"),
    ("Ensemble", "cycle_epochs", 3, 'is for vary="snapshot"'),
    ("Ensemble", "on_failure", "continue", "'go_on'"),
    ("FilterPrune", "criterion", "L1", "did you mean 'l1'?"),
    ("FilterPrune", "macs", 1, "both excluded"),
    ("FilterPrune", "macs", 50, "both excluded"),
    ("FilterPrune", "params", 1.5, "both excluded"),
    ("FilterPrune", "latency_ms", 0, "above 0"),
    ("FilterPrune", "latency_of", "float32", "None"),
    ("FilterPrune", "tolerance", 2, "between 0 and 1"),
    ("FilterPrune", "sensitivity", -0.1, "between 0 and 1"),
    ("FilterPrune", "round_to", 0, "1 or more"),
    ("FilterPrune", "min_filters_fraction", 1.1, "between 0 and 1"),
    ("FilterPrune", "blocks", 1, "True or False"),
    ("FilterPrune", "teacher", "ensembl", "did you mean 'ensemble'?"),
    ("FilterPrune", "soft_target_weight", -1, "0 or more"),
    ("FilterPrune", "feature_weight", "much", "0 or more"),
    ("FilterPrune", "rounds", 0, "1 or more"),
    ("FilterPrune", "epochs", 1.5, "a whole number"),
    ("FilterPrune", "last_epochs", 0, "1 or more"),
    ("FilterPrune", "optimizer", 1, "'adam'"),
    ("FilterPrune", "learning_rate", NAN, "above 0"),
    ("FilterPrune", "warmup", 0.95, "between 0 and 0.9"),
    ("FilterPrune", "batch_size", 0, "1 or more"),
    ("MagnitudePrune", "sparsity", 0.0, "both excluded"),
    ("MagnitudePrune", "sparsity", "2 by 3", "2 by 4"),
    ("MagnitudePrune", "schedule", "linear", "'constant'"),
    ("MagnitudePrune", "epochs", "2", "a whole number"),
    ("MagnitudePrune", "last_epochs", -1, "0 or more"),
    ("MagnitudePrune", "teacher", True, "'ensemble'"),
    ("MagnitudePrune", "soft_target_weight", -0.5, "0 or more"),
    ("MagnitudePrune", "feature_weight", NAN, "0 or more"),
    ("MagnitudePrune", "learning_rate", 0, "above 0"),
    ("MagnitudePrune", "batch_size", -4, "1 or more"),
    ("ClusterWeights", "clusters", 1, "2 or more"),
    ("ClusterWeights", "epochs", 0, "1 or more"),
    ("ClusterWeights", "teacher", "modle", "did you mean 'model'?"),
    ("ClusterWeights", "soft_target_weight", NAN, "0 or more"),
    ("ClusterWeights", "learning_rate", 0, "above 0"),
    ("ClusterWeights", "batch_size", 1.5, "a whole number"),
    ("QuantizeAware", "epochs", -1, "1 or more"),
    ("QuantizeAware", "teacher", "best", "'auto'"),
    ("QuantizeAware", "soft_target_weight", -1.0, "0 or more"),
    ("QuantizeAware", "learning_rate", NAN, "above 0"),
    ("QuantizeAware", "batch_size", 0, "1 or more"),
    ("Export", "quantize", "int9", "did you mean 'int8'?"),
    ("Export", "quantize", 8, "'int8'"),
    ("Export", "tolerance", -0.01, "between 0 and 1"),
    ("Export", "int8_tolerance", 1.5, "between 0 and 1"),
    ("Export", "calibration", 0, "1 or more"),
    ("Export", "temperature", 1, "True or False"),
    ("Export", "coverage", 1.0, "both excluded"),
    ("Export", "license", 3, "a string"),
    ("Export", "note", None, "a string"),
]
WRONG += [("Distill", *row[1:]) for row in WRONG if row[0] == "FineTune"]


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Stage:
    return EXAMPLES[request.param]


def changed(stage: Stage, **fields: Any) -> Any:
    return dataclasses.replace(stage, **fields)  # type: ignore[type-var]


def names_of(stage: Stage) -> list[str]:
    return [field.name for field in dataclasses.fields(stage)]  # type: ignore[arg-type]


def hints(kind: type[Stage]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def test_the_tables_above_speak_of_every_stage_and_every_field() -> None:
    assert set(CHANGES) == set(EXAMPLES)
    for name, stage in EXAMPLES.items():
        fields = set(names_of(stage))
        assert {*CHANGES[name], *INSTEAD.get(name, {})} == fields
        free_text = {"source", "root", "previous", "unlabelled"}  # any text is a path
        assert {field for kind, field, *_ in WRONG if kind == name} == fields - free_text


def test_it_is_frozen(example: Stage) -> None:
    for name in names_of(example):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(example, name, None)


def test_its_repr_evaluates_to_an_equal_stage(example: Stage) -> None:
    for stage in (example, changed(example, **CHANGES[example.name])):
        again = eval(repr(stage), {example.name: type(example)})
        assert again == stage
        assert type(again) is type(stage)


def test_it_survives_pickling(example: Stage) -> None:
    assert pickle.loads(pickle.dumps(example)) == example


def test_its_fingerprint_changes_with_every_field(example: Stage) -> None:
    keys = {fingerprint(example.configuration())}
    changes = {**CHANGES[example.name], **INSTEAD.get(example.name, {})}
    for name, value in changes.items():
        keys.add(fingerprint(changed(example, **{name: value}).configuration()))
    assert len(keys) == 1 + len(changes)
    assert fingerprint(changed(example).configuration()) in keys


def test_what_it_judges_by_are_fields(example: Stage) -> None:
    assert set(example.judged) <= set(example.configuration())


def test_it_has_no_problems_with_valid_values(example: Stage) -> None:
    assert example.validation_errors() == []
    assert changed(example, **CHANGES[example.name]).validation_errors() == []


@pytest.mark.parametrize(("name", "field", "value", "words"), WRONG)
def test_a_bad_value_is_named_with_what_is_right(
    name: str, field: str, value: Any, words: str
) -> None:
    problems = changed(EXAMPLES[name], **{field: value}).validation_errors()
    assert any(field in problem and words in problem for problem in problems), problems


def test_every_bad_value_is_named_at_once() -> None:
    bad = FineTune("MobilNetV2", epochs=0, optimizer="adm", batch_size=True)
    told = "\n".join(bad.validation_errors())
    assert all(name in told for name in ("backbone", "epochs", "optimizer", "batch_size"))


def test_a_misspelt_field_is_refused_with_the_nearest(example: Stage) -> None:
    for name in names_of(example):
        with pytest.raises(PipelineError, match=f"did you mean '{name}'") as caught:
            type(example)(**{f"{name}s": 1})
        assert f"'{name}s'" in str(caught.value)


def test_too_many_values_are_refused(example: Stage) -> None:
    with pytest.raises(PipelineError, match="has invalid arguments"):
        type(example)(*range(len(names_of(example)) + 1))


def test_what_it_needs_is_given_by_some_stage(example: Stage) -> None:
    given = {kind for stage in EXAMPLES.values() for kind in stage.gives}
    for need in map(Need.parse, example.needs):
        assert need.kind in given
        assert need.kind.isidentifier()
    assert example.gives


def test_the_distributions_of_its_key_are_requirements_of_the_package(example: Stage) -> None:
    import importlib.metadata

    required = " ".join(importlib.metadata.requires("kpipe") or ()).lower()
    for name in example.packages:
        assert importlib.metadata.version(name)
        assert name in required


def test_every_field_is_described(example: Stage) -> None:
    text = type(example).__doc__ or ""
    text += (FineTune.__doc__ or "") if isinstance(example, Recipe) else ""
    assert [name for name in names_of(example) if f"{name}: " not in text] == []


def test_its_sources_are_the_files_that_it_names() -> None:
    assert Data("photos").sources() == (Path("photos"),)
    assert FineTune("VGG16").sources() == FineTune("VGG16", weights=None).sources() == ()
    assert FineTune("VGG16", weights="a.h5").sources() == (Path("a.h5"),)


def test_a_rendered_pipeline_of_every_stage_declares_the_same() -> None:
    stages = [changed(EXAMPLES[name], **CHANGES[name]) for name in CHANGES]
    pipeline = Pipeline("all", stages, seed=5)
    namespace: dict[str, Any] = {}
    exec(pipeline.render(), namespace)
    assert namespace["pipeline"] == pipeline


# What the declarative face says and what the domain takes


def literals(kind: type[Stage], field: str) -> set[Any]:
    found: set[Any] = set()

    def collect(annotation: Any) -> None:
        for part in typing.get_args(annotation):
            if typing.get_origin(annotation) is typing.Literal:
                found.add(part)
            else:
                collect(part)

    collect(hints(kind)[field])
    return found


@pytest.mark.parametrize(
    ("kind", "field"),
    [(FineTune, "optimizer"), (FineTune, "switch_to"), (FilterPrune, "optimizer")],
)
def test_the_optimizers_are_those_of_the_training_package(kind, field) -> None:
    assert literals(kind, field) == set(optimizer_names())


def test_the_samplings_and_weightings_are_those_of_the_data_package() -> None:
    assert literals(Balance, "method") == {"class_weight", *typing.get_args(Method)}
    assert literals(Balance, "weighting") == set(typing.get_args(Weighting))
    for method in typing.get_args(Method):
        default = Balance(method)
        assert Sampling(method, default.ratio) == Sampling(method)


@settings(max_examples=20, deadline=None)
@given(ratio=st.floats(-0.2, 1.2) | st.sampled_from([0, 1, NAN]))
def test_the_balance_takes_the_ratios_that_a_sampling_takes(ratio: float) -> None:
    try:
        Sampling("oversample", ratio)
        taken = True
    except DataError:
        taken = False
    assert (Balance("oversample", ratio=ratio).validation_errors() == []) == taken


def test_the_criteria_are_those_of_the_pruning_package() -> None:
    assert literals(FilterPrune, "criterion") == set(CRITERIA)


def test_the_schedules_are_those_of_the_training_package() -> None:
    from kpipe.train import schedule_names

    assert literals(FineTune, "schedule") == set(schedule_names())


def test_the_quantizations_are_those_of_the_converter() -> None:
    from kpipe.lite.export.conversion import _MODES

    assert literals(Export, "quantize") == set(_MODES)


def test_the_magnitude_settings_take_the_rates_of_the_stage() -> None:
    assert TrainingSettings(learning_rate=EXAMPLES["MagnitudePrune"].learning_rate)  # type: ignore[attr-defined]


def test_the_augmentation_has_the_fields_and_the_flips_of_augmenter_and_mixer() -> None:
    fields = {field.name for kind in (Augmenter, Mixer) for field in dataclasses.fields(kind)}
    assert set(Augment().configuration()) == fields
    for flip in literals(Augment, "flip"):
        assert Augmenter(flip=flip).flip == flip


@settings(max_examples=50, deadline=None)
@given(low=st.floats(-5, 5), width=st.floats(0, 5), number=st.floats(-10, 10), strict=st.booleans())
def test_a_range_holds_what_lies_in_it(low, width, number, strict) -> None:
    limits = Between(low, low + width, strict)
    inside = low < number < low + width if strict else low <= number <= low + width
    assert (number in limits) == inside
