"""Which region of a photo to read, and how far to shrink it first.

shrink := the largest of 1, 2, 4, 8 that leaves the photo at least as large as requested

Shrinking averages pixels; a JPEG decoder does it cheaply, by decoding fewer coefficients. The
bilinear step then scales by less than two, or, if 8 is not enough, by more with antialiasing.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SHRINKS", "Window", "window"]

SHRINKS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Window:
    """The region of a photo to crop, in the orientation of the file.

    Args:
        shrink: the factor that divides the sides first (rounded up): 1, 2, 4 or 8.
        left: left edge in pixels of the shrunk photo; `top`, `width` and `height` likewise.
        smooth: whether the region is more than twice as large as requested, so that resizing it
            needs antialiasing.
    """

    shrink: int
    left: int
    top: int
    width: int
    height: int
    smooth: bool


def window(stored: tuple[int, int], wanted: tuple[int, int]) -> Window:
    """Return the centered window with the requested aspect ratio.

    Args:
        stored: (width, height) of the photo in the file, before it is turned upright.
        wanted: (width, height) to resize to, before the photo is turned upright.

    Example:
        >>> from kpipe.crop_window import window
        >>> window((640, 480), (100, 100))
        Window(shrink=4, left=20, top=0, width=120, height=120, smooth=False)
    """
    room = min(stored[0] // wanted[0], stored[1] // wanted[1])
    shrink = next((factor for factor in SHRINKS if factor <= room), 1)
    across, down = (-(-side // shrink) for side in stored)
    width = min(across, max(1, round(down * wanted[0] / wanted[1])))
    height = min(down, max(1, round(across * wanted[1] / wanted[0])))
    left, top = (across - width) // 2, (down - height) // 2
    smooth = max(width / wanted[0], height / wanted[1]) > 2
    return Window(shrink, left, top, width, height, smooth)
