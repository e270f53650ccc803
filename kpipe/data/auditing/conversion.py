"""Report how photos are converted to upright 8-bit RGB.

turned upright    EXIF orientation 2 to 8
converted         CMYK, 16-bit, palette, alpha, and other modes that are neither RGB nor grey
"""

from __future__ import annotations

from kpipe.data.manifest import INFO_COLUMNS, Manifest, Problem
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["conversion_notes"]

_PLAIN = frozenset({"RGB", "L", "1"})
_WORDS = {
    "CMYK": "CMYK to RGB",
    "P": "palette to RGB, what is transparent over {background}",
    "I": "16 bits to 8",
    "RGBA": "alpha, over {background}",
    "LA": "alpha, over {background}",
    "PA": "palette with alpha, over {background}",
}
# More photos of one kind are summarized: phones turn every second photo.
_NAMED = 100


@names_wrong_kinds
def conversion_notes(manifest: Manifest, background: str = "white") -> list[Problem]:
    """Return how photos are converted when they are decoded, summarized if they are many.

    Args:
        manifest: the photos; without the columns that a scan adds, nothing is reported.
        background: the CSS color shown under transparent pixels.

    Returns:
        Problems of the kinds "turned upright" and "converted".

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from kpipe.data import conversion_notes, from_folder
        >>> for color in ("red", "blue"):
        ...     for path in sorted(Path("photos", color).iterdir())[:2]:
        ...         Path("more", color).mkdir(parents=True, exist_ok=True)
        ...         Image.open(path).convert("RGBA").save(Path("more", color, path.name))
        >>> conversion_notes(from_folder("more"))[0][1:]
        ('converted', 'alpha, over white')
    """
    table = manifest.table
    if not set(INFO_COLUMNS) <= set(table):
        return []
    modes = table["mode"].str.replace(r";.*", "", regex=True)
    words = {mode: _WORDS.get(mode, "{mode} to RGB") for mode in set(modes) - _PLAIN}
    done = {
        "turned upright": table["orientation"]
        .where(table["orientation"] != 1)
        .map(lambda number: f"EXIF orientation {number:.0f}", na_action="ignore"),
        "converted": modes.where(~modes.isin(_PLAIN)).map(
            lambda mode: words[mode].format(mode=mode, background=background), na_action="ignore"
        ),
    }
    found: list[Problem] = []
    for kind, details in done.items():
        for detail, rows in details.dropna().groupby(details).groups.items():
            paths = table["path"][rows]
            if len(paths) <= _NAMED:
                found += [(path, kind, str(detail)) for path in paths]
            else:
                found.append(("", kind, f"{detail}: {len(paths)} photos, such as {paths.iloc[0]}"))
    return found
