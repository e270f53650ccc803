"""The pipeline machinery, standard library only.

fields       the check of a stage's fields against their annotations
stage        Stage, Context, the @stage decorator
pipeline     Pipeline: a list of stages, refused whole where it cannot run
fingerprint  canonical JSON and its sha256
digests      content digests of files and folders
store        results by key, written aside and renamed
journal      the events of a run, one JSON object a line
executor     where a stage runs
runner       plan and run
"""

__all__: list[str] = []
