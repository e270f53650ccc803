"""Temperature, calibration error and "not sure" threshold of exported files.

row of metrics.json := "calibration": {
    "temperature", "low", "high"           the fit on validation and its 95 % interval; or None
    "bins"                                 of equal width, for the ECE
    "validation" and "test": {
        "photos", "ece_before", "ece",     of the Keras model as trained; of the file
        "ece_by_chance",                   of a perfectly calibrated model on as many photos
        "debiased",                        root mean square error without what chance adds
        "answered", "accuracy_answered",   fractions, with a threshold
    }
    "coverage", "threshold"                as declared; the probability chosen on validation
}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kpipe.ensemble import TemperatureFit

__all__ = ["CalibratedNetwork", "describe_threshold"]

_BINS = 15

Splits = Mapping[str, "np.ndarray"]


@dataclass(frozen=True, eq=False)
class CalibratedNetwork:
    """A network with its temperature inside, and its predictions.

    Attributes:
        model: the network, with its logits divided by the temperature.
        fit: the temperature; None if none was asked for.
        labels: split -> true classes (photos,).
        before: split -> probabilities of the network as trained, (photos, classes).
        after: split -> those of `model`.
    """

    model: keras.Model
    fit: TemperatureFit | None
    labels: Splits
    before: Splits
    after: Splits

    @classmethod
    def fitted(
        cls, model: keras.Model, labels: Splits, before: Splits, *, temperature: bool
    ) -> CalibratedNetwork:
        """Fit the temperature on the validation split, or leave the network as it is."""
        if not temperature:
            return cls(model, None, labels, before, before)
        from kpipe.ensemble import apply_temperature, fit_temperature
        from kpipe.ensemble.calibration import temper

        fit = fit_temperature(before["validation"], labels["validation"])
        # The same as to predict with the new model, which would take as long again.
        after = {
            split: temper(probabilities, fit.temperature).astype("float32")
            for split, probabilities in before.items()
        }
        return cls(apply_temperature(model, fit.temperature), fit, labels, before, after)

    def threshold(self, validation: np.ndarray, coverage: float | None) -> float | None:
        """Return the probability that a fraction of the validation photos reaches in a file.

        Args:
            validation: probabilities of the file, (photos, classes).
            coverage: the fraction; None for no threshold.

        Returns:
            The threshold; None if every photo would reach it.
        """
        from kpipe.ensemble import coverage_threshold

        return (coverage_threshold(validation, coverage) or None) if coverage else None

    def row(
        self, file: Splits, *, coverage: float | None = None, threshold: float | None = None
    ) -> dict[str, Any]:
        """Return the "calibration" of a file, from its probabilities on both splits."""
        fit = self.fit
        return {
            "temperature": fit and fit.temperature,
            "low": fit and fit.low,
            "high": fit and fit.high,
            "bins": _BINS,
            **{split: self._of_split(split, file[split], threshold) for split in file},
            "coverage": coverage,
            "threshold": threshold,
        }

    def _of_split(
        self, split: str, probabilities: np.ndarray, threshold: float | None
    ) -> dict[str, Any]:
        from kpipe.ensemble import (
            calibration_error_by_chance,
            debiased_calibration_error,
            expected_calibration_error,
        )

        labels = self.labels[split]
        found: dict[str, Any] = {
            "photos": len(labels),
            "ece_before": expected_calibration_error(self.before[split], labels, _BINS),
            "ece": expected_calibration_error(probabilities, labels, _BINS),
            "ece_by_chance": calibration_error_by_chance(probabilities, _BINS),
            "debiased": debiased_calibration_error(probabilities, labels, _BINS),
        }
        if threshold is not None:
            answered = probabilities.max(axis=1) >= threshold
            correct = probabilities.argmax(axis=1) == labels
            found["answered"] = float(answered.mean())
            found["accuracy_answered"] = float(correct[answered].mean()) if answered.any() else None
        return found


def describe_threshold(name: str, calibration: Mapping[str, Any]) -> str:
    """Return a sentence on what the threshold of a file does, or on why it has none."""
    found, coverage = calibration["validation"], calibration["coverage"]
    if calibration["threshold"] is None:
        return (
            f"{name} has no threshold: coverage={coverage} of {found['photos']:,} validation "
            "photos is all of them, or all that differ in confidence"
        )
    return (
        f"{name}: not sure below {calibration['threshold']:.1%}, which {found['answered']:.1%} of "
        f"{found['photos']:,} validation photos reach; {found['accuracy_answered']:.1%} of these "
        "are predicted correctly"
    )
