"""What `data_prep.push` refuses, and which errors are worth another try. No process is started here."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from data_prep.hub import upload as hub_module
from data_prep.hub.upload import error_line, retried
from data_prep.push import main

WRONG_CALLS = {
    "no folder": ([], "folder: is required\n.*push_to: missing"),
    "no name": (["EXPORT"], "push_to: missing"),
    "no owner": (["EXPORT", "name"], "push_to: expected owner/name, got 'name'"),
    "no repository name": (["EXPORT", "a//b"], "push_to: .*a//b"),
    "neither kind": (["PARENT", "a/b"], "neither an export of this project nor a data set of region sidecars"),
    "unknown key": (["EXPORT", "a/b", "token=x"], "unknown key 'token'"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words, message = WRONG_CALLS[case]
    places = {"EXPORT": str(tmp_path / "export"), "PARENT": str(tmp_path)}
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "modeling_crop_llava.py").touch()
    with pytest.raises(SystemExit) as caught:
        main([places.get(word, word) for word in words])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == message.count("\n") + 1
    assert re.search(message, "\n".join(lines)), lines


def answered(status: int, text: str = "") -> HfHubHTTPError:
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError(text, response=response, server_message=text)


def wrapped(error: Exception) -> RuntimeError:
    """As huggingface_hub raises what stopped a large file."""
    wrapping = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    wrapping.__cause__ = error
    return wrapping


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (HTTPError("refused"), 4),
        (answered(502), 4),
        (wrapped(HTTPError("cut")), 4),
        (wrapped(answered(500)), 4),
        (answered(403), 1),
        (answered(429), 1),
        (wrapped(answered(403)), 1),
        (RuntimeError("other"), 1),
    ],
)
def test_only_connections_and_the_hubs_own_faults_are_tried_again(
    error: Exception, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(hub_module.time, "sleep", waits.append)
    asked = []

    def fail() -> None:
        asked.append(1)
        raise error

    with pytest.raises(type(error)):
        retried(fail)
    assert len(asked) == calls
    assert waits == [2.0, 4.0, 8.0][: calls - 1]


def test_what_went_wrong_is_one_line() -> None:
    assert "no connection to the Hub: HTTPError: refused" in error_line(wrapped(HTTPError("refused")))
    assert error_line(answered(409, "a\nb")) == "the name is taken (status 409: a b)"
    assert error_line(ValueError("\n\nfirst\nsecond")) == "first"
    assert error_line(answered(500, "a\n\nb")) == "the Hub failed (status 500: a b)"
