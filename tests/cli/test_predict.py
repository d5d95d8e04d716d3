"""What `lepton predict` prints of an answer."""

import os

import httpx
import pytest

from lepton_platform.cli import serve
from lepton_platform.cli.predict import _shown, _why, service_url
from lepton_platform.processes import born
from lepton_platform.settings import Settings

WORD = {"word": "Press", "start_s": 0.1, "end_s": 0.4, "score": 0.98}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"id": "01a2", "label": "fresh", "score": 0.98455}, "label fresh score 0.985"),
        ({"id": "01a2", "label": "7", "score": 1.0, "scores": {"7": 1.0}}, "label 7 score 1.000"),
        ({"id": "01a2", "boxes": [{}, {}]}, "2 boxes"),
        (
            {"id": "01a2", "text": "Press 1, now.", "score": 0.97, "words": [WORD] * 3, "duration_s": 1.5},
            '"Press 1, now."   score 0.970 3 words duration_s 1.500',
        ),
        ({"id": "01a2", "score": 0.0, "words": [], "text": ""}, '""   score 0.000 0 words'),
        ({"id": "01a2", "text": 'é "q" \n\x1b[2J', "score": 0.5}, '"é \\"q\\" \\n\\u001b[2J"   score 0.500'),
    ],
)
def test_an_answer_is_a_line_and_what_was_written_comes_first(answer, line):
    assert _shown(answer) == line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"status": 503, "message": "lines is starting.", "field": null}}', "lines is starting."),
        ("<h1>502 Bad Gateway</h1>", "<h1>502 Bad Gateway</h1>"),
        ('["no", "object"]', '["no", "object"]'),
    ],
)
def test_a_refusal_is_told_in_its_words_and_not_as_json(body, said):
    assert _why(httpx.Response(503, text=body)) == said


def test_the_services_that_were_started_here_are_asked_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("LEPTON_SERVICE_PORT", "3999")
    settings = Settings(workspace=tmp_path)
    assert service_url(settings, "digits") == "http://127.0.0.1:3999/v1/digits"
    settings.state_dir.mkdir()
    entry = {"pid": os.getpid(), "born": born(os.getpid()), "url": "http://127.0.0.1:3111"}
    serve._write(settings, {serve.SERVICES: entry})
    assert service_url(settings, "digits") == "http://127.0.0.1:3111/v1/digits"
    serve._write(settings, {serve.SERVICES: {**entry, "born": 1.0}})  # the pid is another program's by now
    assert service_url(settings, "digits") == "http://127.0.0.1:3999/v1/digits"
