"""Augmentation: each photo changed by its own draws, and photos of a batch mixed.

augmenter   Augmenter: all of the following, in this order
geometry        flip, rotate, translate, zoom, crop
color           brightness, contrast, saturation, hue; color (the last two in one number);
                channel_shuffle
filters         blur, noise, jpeg
policies        rand_augment, aug_mix
occlusion       erase, grid_mask
mixing      Mixer: mix_up, cut_mix, fourier_mix
strengths   the range of each of them
"""

__all__: list[str] = []
