from __future__ import annotations

import numpy as np
import pytest

from kpipe.data import Augmenter
from tests.data.drawing import draws, noisy_photo


def test_erasing_covers_one_rectangle_of_the_declared_size_with_grey() -> None:
    image = noisy_photo(40, 40)
    drawn = draws(Augmenter(erase=0.6), image, 100)
    covered = (drawn == 128).all(-1)
    np.testing.assert_array_equal(drawn[~covered], np.stack([image] * 100)[~covered])
    areas = covered.mean((1, 2))
    assert 40 < np.count_nonzero(areas) < 80
    assert 0.01 < areas[areas > 0].min() < 0.1
    assert 0.2 < areas.max() < 0.36
    for mask in covered[areas > 0]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.slow
def test_a_grid_covers_a_quarter_with_grey() -> None:
    image = noisy_photo(40, 40)
    drawn = draws(Augmenter(grid_mask=0.6), image, 60)
    covered = (drawn == 128).all(-1)
    np.testing.assert_array_equal(drawn[~covered], np.stack([image] * 60)[~covered])
    areas = covered.mean((1, 2))
    assert 24 < np.count_nonzero(areas) < 48
    assert 0.2 < areas[areas > 0].mean() < 0.33
