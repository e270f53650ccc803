"""Find photos that look the same.

grouping <- candidates (perceptual hashes), comparison (of thumbnails) <- alignment
"""

__all__: list[str] = []
