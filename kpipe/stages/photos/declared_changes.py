"""How the user declared that training samples, weights and augments the photos."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kpipe.core.stage import Context
from kpipe.data.augmentation.strengths import ALPHAS

if TYPE_CHECKING:
    from kpipe.data import Augmenter, Mixer, Sampling

__all__ = ["read_augmentation", "read_balance"]


def read_balance(context: Context) -> tuple[Sampling | None, dict[int, float] | None]:
    """Return what Balance decided: which photos an epoch shows, and the factors of the classes."""
    from kpipe.data import Sampling

    folder = context.optional("balance")
    if folder is None:
        return None, None
    about = json.loads((folder / "balance.json").read_text(encoding="utf-8"))
    sampling = Sampling(**about["sampling"]) if about["sampling"] else None
    return sampling, dict(enumerate(about["class_weight"])) if about["class_weight"] else None


def read_augmentation(
    context: Context, sampling: Sampling | None
) -> tuple[Augmenter | None, Mixer | None]:
    """Read what Augment declared; use its defaults if the repeats of rare photos need some."""
    from kpipe.data import Augmenter, Mixer

    folder = context.optional("augmentation")
    if folder is not None:
        about = json.loads((folder / "augmentation.json").read_text(encoding="utf-8"))
        mixer = Mixer(**about["mixer"])
        return Augmenter(**about["augmenter"]), None if mixer == Mixer() else mixer
    if sampling is None or sampling.method != "augment_minority":
        return None, None
    from kpipe.stages.augment import Augment

    defaults = Augment().configuration()
    context.journal.record(
        "note", text="no Augment is declared: augment_minority uses the defaults of Augment"
    )
    return Augmenter(**{name: defaults[name] for name in defaults if name not in ALPHAS}), None
