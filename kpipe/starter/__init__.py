"""From a folder of photos to a pipeline file: what the photos are, what follows, and its text.

look(manifest)                    -> PhotoFacts
choose(facts, target, effort)     -> [Choice, ...], a stage and the reason for it
render(source, choices, ...)      -> the pipeline file
minutes(facts, choices, speed)    -> about how long the run takes
"""

from kpipe.starter.choices import Choice, choose
from kpipe.starter.facts import PhotoFacts, look
from kpipe.starter.rendering import render
from kpipe.starter.run_time import machine_speed, minutes

__all__ = ["Choice", "PhotoFacts", "choose", "look", "machine_speed", "minutes", "render"]
