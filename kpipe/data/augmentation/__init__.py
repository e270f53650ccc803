"""Photos changed in training: each by its own draws, a whole batch at once.

augmenter   geometry, color, filters, policies, occlusion, in this order; each by `draws`
mixing      photos of a batch with one another, labels likewise
sheet       what it looks like
"""

__all__: list[str] = []
