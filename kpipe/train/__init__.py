"""Training: backbones, fine-tuning, optimizers, distillation, and a fit that resumes.

backbones/      pretrained networks by name, their weights, other image sizes
transfer/       fine-tuning of the last layers, cached features of the frozen part
optimizers/     optimizers by name, schedules, layer-wise decay, the optimizer switch
loop/           fit and fit_phases, checkpoints, averaged weights
distillation/   a student that learns from a teacher
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
