"""Temperature scaling: one factor that makes the probabilities of a classifier mean what they say.

    softmax(logits / T)   T > 1 lowers the confidence, T < 1 raises it; the predicted class stays

A network that predicts 90 % should be right for 9 of 10 photos. Networks trained to the end are
more confident than that, those trained with mixed photos less. T minimizes the cross-entropy on
photos that the network was not trained on.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML, section 4.2
(arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

from kpipe.ensemble.labelled_probabilities import (
    check_labels,
    check_probabilities,
    predict_labelled,
)
from kpipe.ensemble.logit_scaling import apply_temperature, check_probability_model
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["TemperatureFit", "calibrate", "fit_temperature", "temper"]

_LOWEST, _HIGHEST = 0.2, 5.0
# Half of the 95 % quantile of the chi-squared distribution with 1 degree of freedom.
_LIKELIHOOD_DROP = 1.92
_WIDE = 2.0  # of an interval, high / low
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature that fits labelled images, and how well they determine it.

    Attributes:
        temperature: what to divide the logits by, 0.2 to 5.
        low: lower end of its 95 % interval, by the likelihood ratio.
        high: upper end of the interval.
        images: number of images.
        before: mean cross-entropy in nats at a temperature of 1.
        after: the same at the fitted temperature.
        all_correct: whether every image is predicted correctly.

    Example:
        >>> from kpipe.ensemble import TemperatureFit
        >>> TemperatureFit(1.3, 0.6, 2.8, images=20, before=0.52, after=0.5).doubt
        '20 images only place it between 0.60 and 2.80'
    """

    temperature: float
    low: float
    high: float
    images: int
    before: float
    after: float
    all_correct: bool = False

    @property
    def doubt(self) -> str:
        """Why the temperature is uncertain; empty if it is not."""
        if self.all_correct:
            return (
                f"all {self.images:,} images are predicted correctly, which sets no limit to the "
                "confidence: its mean is that of the rule of succession"
            )
        if self.high > _WIDE * self.low:
            between = f"between {self.low:.2f} and {self.high:.2f}"
            return f"{self.images:,} images only place it {between}"
        return ""


@names_wrong_kinds
def calibrate(model: keras.Model, data: Iterable[Any] | tuple[Any, Any]) -> keras.Model:
    """Return a model whose logits are divided by the temperature that fits labelled images.

    The predicted classes stay the same. If the model ends in a dense layer or a convolution, and a
    softmax, the weights of that layer are divided, so that the graph stays the same, too. Any other
    model, such as an average of several, gets operations at its end: `p ** (1 / T)`, normalized.

    Args:
        model: a classifier that returns probabilities (batch, classes), each row with a sum of 1.
            It does not change.
        data: batches of (images, labels) that the model was not trained on, or one such pair of
            arrays; labels are class indices (images,) or one-hot. A few hundred images are enough;
            `fit_temperature` says how well they determine the temperature.

    Returns:
        A new model with the same input and output.

    Raises:
        TrainingError: the model has no graph or returns no probabilities, or the data do not fit.

    Example:
        >>> import keras, numpy as np
        >>> from kpipe.ensemble import calibrate
        >>> pixels = keras.Input((2,))
        >>> sure = keras.Model(pixels, keras.layers.Softmax()(pixels))
        >>> logits = np.tile([[4.0, 0.0]], (10, 1))  # 98 % sure of class 0, right 8 of 10 times
        >>> model = calibrate(sure, (logits, np.repeat([0, 1], [8, 2])))
        >>> model(logits[:1]).numpy().round(2)
        array([[0.8, 0.2]], dtype=float32)
    """
    probabilities, labels = predict_labelled(check_probability_model(model), data)
    return apply_temperature(model, fit_temperature(probabilities, labels).temperature)


@names_wrong_kinds
def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> TemperatureFit:
    """Return the temperature of the least cross-entropy, from 0.2 to 5.

    The cross-entropy is convex in 1 / T, so there is one minimum. If every image is predicted
    correctly, the cross-entropy falls without limit as T falls. The temperature is then that at
    which the mean confidence is (n + 1) / (n + 2), the accuracy to expect after n successes of n
    (Laplace's rule of succession).

    Args:
        probabilities: (images, classes) at a temperature of 1, each row with a sum of 1.
        labels: true class of each image, (images,), or one-hot.

    Raises:
        TrainingError: no probabilities, or labels that do not fit them.

    Example:
        >>> import numpy as np
        >>> from kpipe.ensemble import fit_temperature
        >>> sure = np.tile([[0.99, 0.01]], (100, 1))  # right 80 of 100 times
        >>> round(fit_temperature(sure, np.repeat([0, 1], [80, 20])).temperature, 2)
        3.31
    """
    found = check_probabilities(probabilities)
    truth = check_labels(labels, found)
    logits, rows = _logits(found), np.arange(len(found))

    def cross_entropy(inverse: float) -> float:
        return float(-log_softmax(logits * inverse, axis=1)[rows, truth].mean())

    least, most = 1 / _HIGHEST, 1 / _LOWEST
    all_correct = bool((found.argmax(axis=1) == truth).all())
    if all_correct:
        confidence = (len(found) + 1) / (len(found) + 2)

        def doubt(inverse: float) -> float:
            return float(confidence - softmax(logits * inverse, axis=1).max(axis=1).mean())

        best = _crossing(doubt, least, most) if doubt(least) > 0 else least
    else:
        found_minimum = minimize_scalar(
            cross_entropy, bounds=(least, most), method="bounded", options={"xatol": 1e-7}
        )
        best = found_minimum.x if found_minimum.fun < cross_entropy(1.0) else 1.0
    after = cross_entropy(best)

    def likely(inverse: float) -> float:
        return _LIKELIHOOD_DROP - len(found) * (cross_entropy(inverse) - after)

    return TemperatureFit(
        temperature=float(1 / best),
        low=1 / _crossing(likely, best, most),
        high=1 / _crossing(likely, best, least),
        images=len(found),
        before=cross_entropy(1.0),
        after=after,
        all_correct=all_correct,
    )


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return what a model returns at a temperature, (images, classes), from what it does at 1."""
    return softmax(_logits(probabilities) / temperature, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # float32 and uint8 outputs round the smallest probabilities to 0.
    return np.log(np.maximum(probabilities.astype(np.float64), _TINY))


def _crossing(function: Callable[[float], float], start: float, end: float) -> float:
    """Return where a falling function that is positive at the start crosses 0, or the end."""
    return end if function(end) >= 0 else float(brentq(function, start, end))
