"""The loop reaches its target in rounds, and a killed one ends like one never killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import PruneResult, Selection, count_macs, prune_filters
from tests.prune import nets
from tests.prune.masking import randomize

# Keras' own save converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 4
FOUR = Selection(multiple=4, seed=5)


class Killed(BaseException):
    """Stands for the end of the process."""


def finetune(model: keras.Model, round: int) -> None:
    # Eager: quicker than tracing so small a model, and its dropout draws all the same.
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(IMAGES, LABELS)


def evaluate(model: keras.Model) -> float:
    return float(np.mean(np.argmax(model(IMAGES), axis=1) == LABELS))


def pruned(folder: Path | None = None, **changes: Any) -> PruneResult:
    arguments: dict[str, Any] = {
        "macs": 0.5,
        "finetune": finetune,
        "evaluate": evaluate,
        "selection": FOUR,
        "folder": folder,
        "rounds": 2,
        **changes,
    }
    return prune_filters(randomize(nets.lite()), **arguments)


@pytest.fixture(scope="module")
def whole() -> PruneResult:
    """A loop never killed, without a folder."""
    return pruned()


def same(first: keras.Model, second: keras.Model) -> bool:
    pairs = zip(first.weights, second.weights, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


def test_the_share_falls_geometrically_to_the_target() -> None:
    original = randomize(nets.lite())
    macs, weights = count_macs(original), [w.numpy() for w in original.weights]
    result = prune_filters(
        original, macs=0.4, finetune=finetune, evaluate=evaluate, rounds=2, selection=FOUR
    )
    rows = result.history
    assert [row.round for row in rows] == [0, 1, 2]
    assert rows[0].share == 1 and rows[0].before == rows[0].after
    for row in rows:
        assert 0.7 * 0.4 ** (row.round / 2) < row.share <= 0.4 ** (row.round / 2)
        assert row.share == row.macs / macs
    assert count_macs(result.model) == rows[-1].macs
    assert result.model.count_params() == rows[-1].params
    assert result.model.get_layer("head").filters == rows[-1].filters["head"]
    assert all(count % 4 == 0 for count in rows[-1].filters.values())
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, original.weights, strict=True))


@pytest.mark.parametrize("deadly", [1, 2])
def test_a_killed_loop_ends_like_one_never_killed(
    tmp_path: Path, whole: PruneResult, deadly: int
) -> None:
    def killing(model: keras.Model, round: int) -> None:
        if round == deadly:
            raise Killed
        finetune(model, round)

    with pytest.raises(Killed):
        pruned(tmp_path, finetune=killing)
    asked: list[int] = []

    def counting(model: keras.Model, round: int) -> None:
        asked.append(round)
        finetune(model, round)

    continued = pruned(tmp_path, finetune=counting)
    assert asked == list(range(deadly, 3))
    assert continued.history == whole.history
    assert same(continued.model, whole.model)
    again = pruned(tmp_path, finetune=counting)
    assert asked == list(range(deadly, 3)) and same(again.model, whole.model)


def test_a_stored_round_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    whole = pruned(tmp_path, rounds=1)
    (tmp_path / "round-01.keras").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="round-01"):
        assert same(pruned(tmp_path, rounds=1).model, whole.model)
    (tmp_path / "history.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert same(pruned(tmp_path, rounds=1).model, whole.model)


def test_a_folder_of_another_loop_is_refused(tmp_path: Path) -> None:
    pruned(tmp_path, rounds=1)
    for changes in ({"macs": 0.6}, {"criterion": "l2"}, {"selection": Selection(multiple=4)}):
        with pytest.raises(PruneError, match="another loop"):
            pruned(tmp_path, **{"rounds": 1, **changes})
    rows = json.loads((tmp_path / "history.json").read_text())["rounds"]
    assert len(rows) == 2


def test_what_cannot_be_reached_is_said_before_any_training() -> None:
    def never(*_: object) -> None:
        raise AssertionError("trained")

    def asked(**changes: Any) -> str:
        with pytest.raises(PruneError) as caught:
            pruned(**{"finetune": never, "evaluate": never, **changes})
        return str(caught.value)

    text = asked(macs=0.01)
    assert "cannot be cut to 0.01" in text
    share = float(text.split("macs of at least ")[1].split(",")[0])
    assert pruned(macs=share, rounds=1).history[-1].share <= share
    for changes in ({"macs": 1.0}, {"macs": 0.0}, {"macs": 1.5}, {"rounds": 0}):
        assert "no target" in asked(**changes)
    assert "did you mean 'l1'" in asked(criterion="l11")
    with pytest.raises(PruneError, match="selection"):
        Selection(floor=2)


def test_a_finetune_that_returns_a_model_is_taken_at_its_word() -> None:
    def replaced(model: keras.Model, round: int) -> keras.Model:
        copy = keras.models.clone_model(model)
        copy.set_weights([0 * w for w in model.get_weights()])
        return copy

    result = pruned(finetune=replaced, rounds=1)
    assert all(not weight.numpy().any() for weight in result.model.weights)
