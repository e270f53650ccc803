"""Find what would harm training before it begins.

audit       all findings <- duplicates, spelling (of labels), cleaning (a cleaned table)
conversion  what decoding does to photos that are not upright 8-bit RGB
"""

__all__: list[str] = []
