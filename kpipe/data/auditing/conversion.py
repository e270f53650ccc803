"""What is done to photos so that every one is RGB, upright, in eight bits.

turned upright    EXIF orientation 2 to 8
converted         CMYK, 16-bit, palette, alpha, and what else is neither RGB nor grey
first frame       GIF, of which the later frames are not looked at
"""

from __future__ import annotations

from kpipe.data.manifest import FURTHER_FACTS, Manifest, Problem

__all__ = ["CONVERSIONS", "converted"]

CONVERSIONS = frozenset({"turned upright", "converted", "first frame"})
_PLAIN = frozenset({"RGB", "L", "1"})
_WORDS = {
    "CMYK": "CMYK to RGB",
    "P": "palette to RGB, what is transparent over {background}",
    "I": "16 bits to 8",
    "RGBA": "alpha, over {background}",
    "LA": "alpha, over {background}",
    "PA": "palette with alpha, over {background}",
}
# More of one sort are told by their number: a phone turns every second photo.
_NAMED = 100


def converted(manifest: Manifest, background: str = "white") -> list[Problem]:
    """What is done to which photos; of many alike, how many.

    Args:
        manifest: with the columns that a scan adds; without them, nothing is known.
        background: the CSS color under transparent pixels.
    """
    table = manifest.table
    if not set(FURTHER_FACTS) <= set(table):
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
        "first frame": table["format"].where(table["format"] == "GIF"),
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
