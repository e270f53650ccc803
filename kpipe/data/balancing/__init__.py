"""Handle classes of different sizes: by weights in the loss, or by which photos an epoch shows.

class_weights           class_weight: a factor in the loss for each class
                        class_shares: the fraction of the loss that each class then has
over_sampling           oversample: repeat photos of small classes
under_sampling          undersample: leave out photos of large classes
minority_augmentation   augment_minority: repeat photos of small classes, augment the repeats
sampling                Sampling: the same three, with another draw in each epoch of training,
                        as `TrainingOptions(sampling=...)`; its first is that of the functions
"""

__all__: list[str] = []
