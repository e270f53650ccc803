from typing import ClassVar, Literal

import pytest

from kpipe import Pipeline
from kpipe.core.fields import nearest_field
from kpipe.core.stage import Stage, stage
from kpipe.errors import PipelineError
from tests.core.toys import Count, Join, Read, Repeat, Suffix


@stage
class Choice(Stage):
    gives: ClassVar = ("text",)

    kind: Literal["big", "small"] | None = "small"
    file: str | None = "a"
    mirror: Literal["", "up"] = "up"

    def run(self, context): ...


@stage
class Longer(Stage):
    needs: ClassVar = ("text",)

    length: int = 1

    def conflicts(self, earlier):
        return [
            f"length={self.length}: {given.name} reads {given.path!r}"
            for given in earlier
            if len(given.path) < self.length
        ]

    def run(self, context): ...


def refusal(*arguments, **options):
    with pytest.raises(PipelineError) as caught:
        Pipeline(*arguments, **options)
    return str(caught.value)


def test_links_name_the_newest_giver_or_every_giver():
    pipeline = Pipeline("toy", [Read("a"), Repeat(), Suffix(), Join()])
    assert pipeline.links() == [{}, {"text": (0,)}, {}, {"text": (0, 1), "suffix": (2,)}]


def test_an_optional_need_may_be_absent():
    assert Pipeline("toy", [Read("a"), Join()]).links()[1] == {"text": (0,), "suffix": ()}


def test_every_offender_is_named_at_once():
    stages = [Read("a"), Repeat(times=0), Suffix(place="bakc"), "Join"]
    output = refusal("bad name!", stages, seed=-1)
    for words in (
        "'bad name!'",
        "seed=-1",
        "Repeat: times=0",
        "between 1 and 9",
        "did you mean 'back'?",
        "item 4 is",
    ):
        assert words in output


def test_the_error_names_the_stage_to_move():
    assert "move Read before it" in refusal("toy", [Repeat(), Read("a"), Join()])


def test_a_need_that_nothing_gives_is_named():
    assert "Repeat needs 'text'" in refusal("toy", [Repeat()])


def test_a_stage_that_nothing_uses_is_named_with_its_right_place():
    assert "Suffix is not used by any later stage: move it before Join" in refusal(
        "toy", [Read("a"), Join(), Suffix(), Count()]
    )


def test_a_duplicate_stage_is_refused():
    output = refusal("toy", [Read("a"), Repeat(), Repeat(), Suffix(), Join()])
    assert "Repeat appears 2 times: keep one" in output
    assert "Suffix" not in output


def test_a_stage_suggests_what_to_do_instead_of_a_duplicate():
    class Suffixes(Suffix):
        duplicate_hint = "write both texts into one"

    output = refusal("toy", [Read("a"), Suffixes(), Suffixes("?"), Suffixes("."), Join()])
    assert "Suffixes appears 3 times: write both texts into one" in output


def test_an_empty_list_is_refused():
    assert "empty" in refusal("toy", [])


def test_a_misspelt_field_is_named_with_the_nearest_right_one():
    with pytest.raises(PipelineError, match="did you mean 'times'") as caught:
        Repeat(tmies=3)
    assert "'tmies'" in str(caught.value)


def test_a_missing_field_is_named():
    with pytest.raises(PipelineError, match="'path'"):
        Read()


def test_settings_replace_fields_in_a_new_pipeline():
    pipeline = Pipeline("toy", [Read("a"), Repeat()])
    changed = pipeline.with_settings(["Repeat.times=5", "Read.path=b c", "seed=3"])
    assert changed == Pipeline("toy", [Read("b c"), Repeat(5)], seed=3)
    assert pipeline == Pipeline("toy", [Read("a"), Repeat(2)])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("Repaet.times=3", "did you mean 'Repeat'?"),
        ("Repeat.time=3", "did you mean 'times'?"),
        ("Repeat.times=ten", "a whole number between 1 and 9"),
        ("Repeat.times=10", "a whole number between 1 and 9"),
        ("Repeat.times", "stage.field=value"),
        ("times=3", "stage.field=value"),
    ],
)
def test_an_invalid_setting_is_refused(setting, words):
    with pytest.raises(PipelineError) as caught:
        Pipeline("toy", [Read("a"), Repeat()]).with_settings([setting])
    assert words in str(caught.value)


def test_the_rendered_declaration_declares_the_same_pipeline():
    pipeline = Pipeline("toy", [Read("it's"), Repeat(3), Join()], seed=4)
    namespace = {}
    exec(pipeline.render(), namespace)
    assert namespace["pipeline"] == pipeline


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("Read.upper=yes", True),
        ("Read.upper=TRUE", True),
        ("Read.upper=off", False),
        ("Read.path=none", "none"),  # a field of text takes any text
        ("Choice.kind=none", None),
        ("Choice.kind=Null", None),
        ("Choice.file=none", None),
        ("Choice.mirror=none", ""),
        ("Choice.kind=big", "big"),
    ],
)
def test_small_words_are_taken_as_meant(setting, value):
    pipeline = Pipeline("toy", [Read("a"), Choice(), Join()]).with_settings([setting])
    field = setting.partition("=")[0].partition(".")[2]
    (found,) = {getattr(stage, field) for stage in pipeline.stages if hasattr(stage, field)}
    assert (found, type(found)) == (value, type(value))


def test_a_word_in_quotes_is_told_from_the_value():
    output = refusal("toy", [Read("a", upper="no"), Choice(kind="none"), Join()])
    assert "upper='no': expected True or False; write False, without quotes" in output
    assert "kind='none'" in output and "write None, without quotes" in output


def test_a_setting_of_another_stages_field_names_that_stage():
    with pytest.raises(PipelineError, match="Read has no field 'times', but Repeat has") as caught:
        Pipeline("toy", [Read("a"), Repeat()]).with_settings(["Read.times=3"])
    assert "what to do: --set Repeat.times=3" in str(caught.value)


def test_fields_that_do_not_fit_those_of_earlier_stages_are_named():
    assert Pipeline("toy", [Read("abc"), Longer(3)])
    output = refusal("toy", [Read("abc"), Longer(4)])
    assert "- Longer: length=4: Read reads 'abc'" in output
    with pytest.raises(PipelineError, match="length=4"):
        Pipeline("toy", [Read("abc"), Longer(3)]).with_settings(["Longer.length=4"])


def test_a_field_is_found_by_its_usual_names():
    known = ["backbone", "batch_size", "learning_rate", "members"]
    for name, field in [
        ("network", "backbone"),
        ("Model", "backbone"),
        ("lr", "learning_rate"),
        ("batch", "batch_size"),
        ("n_members", "members"),
        ("models", "members"),
    ]:
        assert nearest_field(name, known) == f"did you mean {field!r}?"
    assert nearest_field("lr", ["epochs", "lrs"]) == "did you mean 'lrs'?"


@stage
class Cook(Stage):
    gives: ClassVar = ("text",)
    publishes: ClassVar = ("*",)
    preset_by: ClassVar = "effort"
    presets: ClassVar = {"quick": {"minutes": 5}, "best": {"minutes": 60, "salt": 2}}

    dish: str
    minutes: int = 20
    salt: int = 1
    effort: Literal["quick", "standard", "best"] = "standard"

    def run(self, context): ...


def test_a_preset_changes_the_defaults_and_nothing_that_is_declared():
    assert Cook("rice") == Cook("rice", effort="standard")
    assert (Cook("rice", effort="quick").minutes, Cook("rice", effort="quick").salt) == (5, 1)
    best = Cook("rice", salt=0, effort="best")
    assert (best.minutes, best.salt) == (60, 0)
    assert "minutes=60" in repr(best) and eval(repr(best)) == best
    assert Cook("rice", effort="bset").validation_errors() == [
        "effort='bset': expected 'quick' or 'standard' or 'best'; did you mean 'best'?"
    ]


def test_a_setting_chooses_another_preset():
    def cook(*settings: str, **declared: int) -> Stage:
        return Pipeline("meal", [Cook("rice", **declared)]).with_settings(settings).stages[0]

    assert cook("Cook.effort=quick") == Cook("rice", effort="quick")
    assert cook("Cook.effort=best", salt=1) == Cook("rice", effort="best", salt=1)
    assert cook("Cook.minutes=7", "Cook.effort=best").minutes == 7
    assert cook("Cook.effort=best", "Cook.minutes=7").salt == 2
    assert cook("Cook.effort=best", "Cook.effort=standard") == Cook("rice")
    assert cook("Cook.effort=standard", minutes=3, salt=3) == Cook("rice", 3, 3)
    for setting in ("Cook.effort=best", "Cook.effort=quick"):
        with pytest.raises(PipelineError, match="would change nothing"):
            cook(setting, minutes=3, salt=3)
    with pytest.raises(PipelineError, match="would change nothing"):
        cook("Cook.effort=quick", minutes=3)
