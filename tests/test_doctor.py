"""`nautile doctor`: what it says of packages, of the machine, and of a main job that fails."""

import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from nautile.cli import main
from nautile.errors import NautileError
from nautile.tasks import doctor, extras

WANTED = [
    "there>=1",
    "old>=2",
    'gone; python_version > "3"',
    'other; extra == "more"',
    'own[more]; extra == "all"',
    'there>=1; python_version < "3" and extra == "more"',
]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"there": "1.5", "old": "1.9"}

    def version(name: str) -> str:
        if name not in there:
            raise extras.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(extras, "requires", lambda package: WANTED)
    monkeypatch.setattr(extras, "version", version)


@pytest.mark.usefixtures("packages")
def test_what_an_extra_lacks_is_named() -> None:
    assert extras.missing("", "own") == ["old>=2 (1.9 is there)", "gone"]
    assert extras.missing("more", "own") == ["gone", "other"]
    assert extras.missing("all", "own") == ["gone", "other"]


@pytest.mark.usefixtures("packages")
def test_what_cannot_be_loaded_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nautile.tasks.doctor", None)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nautile: error: nautile cannot be loaded (import of nautile.tasks.doctor halted")
    assert said.endswith("; it lacks old>=2 (1.9 is there), gone: pip install nautile\n")


def test_it_tells_of_the_machine_and_tries_the_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for name in ("Python", "processor", "torch", "bfloat16", "GPU", "nautile[finetune]", "weights"):
        assert name in said
    assert "the main job works: 'I love it' is positive" in said


@pytest.mark.parametrize(
    ("found", "said"),
    [("negative", "calls 'I love it' negative, not positive"), (OSError("no disk"), "fails: no disk")],
)
def test_a_main_job_that_does_not_work_is_an_error(
    found: str | OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def classify(text: str) -> pd.DataFrame:
        if isinstance(found, OSError):
            raise found
        return pd.DataFrame({"label": [found]})

    monkeypatch.setattr(doctor, "classify", classify)
    with pytest.raises(NautileError, match=said):
        doctor.check_main_job()


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_name="GPU {}".format)
    monkeypatch.setattr(doctor.torch, "cuda", cuda)
    assert ("GPU", "GPU 0, GPU 1", "--device auto") in list(doctor._machine())
