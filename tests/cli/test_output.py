from __future__ import annotations

import io
import sys

import pytest

from kpipe.cli.output import print_text


@pytest.mark.parametrize("error", [False, True])
def test_what_a_terminal_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch, error: bool) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr" if error else "stdout", stream)
    print_text("赤\x1b[31m.jpg\ncat", error=error, bold=True)
    assert written.getvalue() == b"\\u8d64\\x1b[31m.jpg\ncat\n"
