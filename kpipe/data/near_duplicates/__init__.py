"""Photos that look the same.

groups <- candidates (perceptual hashes), comparison <- alignment
"""

__all__: list[str] = []
