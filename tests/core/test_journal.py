import pickle

from kpipe.core.journal import Journal, read_journal


def test_events_are_read_back_in_order(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record("first", label="Jürgen's \n photo")
    journal.for_stage("FineTune").record("second", value=0.5)
    first, second = read_journal(journal.path)
    assert (first["event"], first["label"]) == ("first", "Jürgen's \n photo")
    assert (second["event"], second["stage"], second["value"]) == ("second", "FineTune", 0.5)


def test_a_truncated_line_is_skipped_and_later_lines_are_read(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record("first")
    with journal.path.open("a") as stream:
        stream.write('{"event": "to')
    journal.record("third")
    assert [event["event"] for event in read_journal(journal.path)] == ["first", "third"]


def test_progress_reaches_the_listeners_and_is_not_stored(tmp_path):
    heard = []
    journal = Journal(tmp_path / "journal.jsonl", (heard.append,))
    journal.progress("step", done=1)
    assert heard[0]["done"] == 1
    assert not journal.path.exists()


def test_a_journal_travels_to_another_process_without_its_listeners(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", (print,), "FineTune")
    copy = pickle.loads(pickle.dumps(journal))
    assert (copy.path, copy.stage, copy.listeners) == (journal.path, "FineTune", ())


def test_separators_of_unicode_within_a_text_do_not_divide_a_line(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    text = "one\u2028two\u2029three\x85four\x1cfive"
    journal.record("note", text=text)
    assert [event["text"] for event in read_journal(journal.path)] == [text]
