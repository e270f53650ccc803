"""The pipeline machinery, standard library only.

fields       check a stage's fields against their annotations
stage        Stage, Context, the @stage decorator
declaring    what a stage's declaration refuses, and the defaults of a preset
pipeline     Pipeline: a validated list of stages
fingerprint  canonical JSON and its sha256
digests      content digests of files and folders
store        results by key
disk_errors  a full or read-only disk as a message
journal      the events of a run, one JSON object per line
lock         one run per folder, and one maker per result, at a time
executor     where a stage runs
making       the result of one stage: found, awaited or made
differences  why a stage runs again
runner       plan and run
inventory    what the store holds, and which runs need it
"""

__all__: list[str] = []
