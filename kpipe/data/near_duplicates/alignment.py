"""Align one thumbnail with another, to undo a slight crop or stretch.

    other(x, y) ~ gain * photo(shift_x + (1 + stretch_x) x, shift_y + (1 + stretch_y) y) + offset

x and y run from -1 to 1. Gauss-Newton (Lucas and Kanade, 1981): each step solves for the six
numbers by least squares, from the gradients of the moved photo; a step that does not improve the
correlation is rejected.
"""

from __future__ import annotations

import numpy as np

__all__ = ["align", "correlation", "halve", "move"]

# In halves of a side: crops of 5 % on both sides, and a little more.
_FARTHEST = 0.16
_STEPS = 3


def align(photos: np.ndarray, others: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return better moves to align each photo, (pairs, side, side) float32, with the other.

    Moves are (pairs, 4) float32: shift and stretch across, shift and stretch down.
    """
    moved, inside = move(photos, moves)
    best = correlation(moved, inside, others)
    for _ in range(_STEPS):
        tried = _step(moved, inside, others, moves)
        there, within = move(photos, tried)
        found = correlation(there, within, others)
        better = found > best
        moves = np.where(better[:, None], tried, moves)
        moved = np.where(better[:, None, None], there, moved)
        inside = np.where(better[:, None, None], within, inside)
        best = np.maximum(found, best)
    return moves


def move(photos: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample each photo bilinearly at shifted and stretched positions.

    Returns:
        The moved photos, (pairs, side, side) float32; likewise 1 where they have pixels, else 0.
    """
    side = photos.shape[1]
    axis, pixels = _axis(side), np.arange(side, dtype=np.float32)
    weights, inside = [], []
    for shift, stretch in ((moves[:, 2:3], moves[:, 3:4]), (moves[:, 0:1], moves[:, 1:2])):
        places = ((shift + (1 + stretch) * axis + 1) * side - 1) / 2
        weights.append(np.maximum(0, 1 - np.abs(places[:, :, None] - pixels)))
        inside.append((places >= -0.5) & (places <= side - 0.5))
    found = weights[0] @ photos @ weights[1].transpose(0, 2, 1)
    return found, (inside[0][:, :, None] & inside[1][:, None, :]).astype(np.float32)


def halve(photos: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2 x 2 pixels of photos with an even side."""
    across = photos[:, :, ::2] + photos[:, :, 1::2]
    return (across[:, ::2] + across[:, 1::2]) / 4


def correlation(photos: np.ndarray, inside: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each pair where `inside` is 1: (pairs,) float32."""
    flat = (array.reshape(len(photos), -1) for array in (photos, inside, others))
    photos, inside, others = flat
    pixels = np.maximum(inside.sum(1), 1)
    first, second = inside * photos, inside * others
    means = first.sum(1) / pixels, second.sum(1) / pixels

    def product(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
        return np.einsum("ij,ij->i", a, b) - pixels * mean

    both = product(first, second, means[0] * means[1])
    norms = product(first, first, means[0] ** 2) * product(second, second, means[1] ** 2)
    return both / np.sqrt(np.maximum(norms, 1e-3))


def _axis(side: int) -> np.ndarray:
    return ((2 * np.arange(side, dtype=np.float32) + 1) / side - 1).astype(np.float32)


def _step(
    here: np.ndarray, inside: np.ndarray, others: np.ndarray, moves: np.ndarray
) -> np.ndarray:
    """The moves after one step along the gradients of the moved photos."""
    pairs, side, _ = here.shape
    axis = _axis(side)
    down, across = (np.gradient(here, axis=place) * (side / 2) for place in (1, 2))
    terms = [np.ones_like(here), here, across, across * axis, down, down * axis[:, None]]
    slopes = np.stack(terms, 1).reshape(pairs, 6, -1)
    weighted = slopes * inside.reshape(pairs, 1, -1)
    squares = weighted @ slopes.transpose(0, 2, 1) + 1e-2 * np.eye(6, dtype=np.float32)
    right = weighted @ others.reshape(pairs, -1, 1)
    solved = np.linalg.solve(squares.astype(float), right.astype(float))[:, :, 0]
    # A gain near zero means that the photos have nothing in common.
    gain = np.where(solved[:, 1] > 0.2, solved[:, 1], 1)
    by = np.clip(solved[:, 2:] / gain[:, None], -0.1, 0.1)
    further = moves.astype(float)
    further[:, 0::2] += (1 + moves[:, 1::2]) * by[:, 0::2]
    further[:, 1::2] = (1 + moves[:, 1::2]) * (1 + by[:, 1::2]) - 1
    return np.clip(further, -_FARTHEST, _FARTHEST).astype(np.float32)
