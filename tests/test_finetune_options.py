"""Options: labels as people type them, what a method has no use for, and a file that gives them back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nautile.errors import NautileError
from nautile.tasks.finetune.options import TRAINING, UNUSED, Options, make_options, write_config


@pytest.mark.parametrize("labels", ["a, b,c", ["a", "b", "c"], ("a", "b", "c"), np.array(["a", "b", "c"])])
def test_labels_are_a_list_or_parted_by_commas(labels: Any) -> None:
    assert make_options({"labels": labels}).labels == ["a", "b", "c"]


def test_labels_may_be_numbers_or_hold_commas() -> None:
    assert make_options({"labels": [1, np.int64(2), "3"]}).labels == ["1", "2", "3"]
    assert make_options({"labels": [1.0, np.float64(2.5)], "out_of_scope": 1}).labels == ["1", "2.5"]
    assert make_options({"labels": ["a, b", "c"]}).labels == ["a, b", "c"]
    for odd, said in ((True, "True is no text"), (float("nan"), "valid string")):
        with pytest.raises(NautileError, match=said):
            make_options({"labels": ["a", odd]})


def test_labels_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": "the first", "b": ""}))
    (tmp_path / "a.txt").write_text("a\nb\n")
    for name in ("a.json", "a.txt"):
        found = make_options({"labels": str(tmp_path / name)})
        assert found.labels == ["a", "b"]
        write_config(found, tmp_path / "config.yaml")
        assert make_options({}, tmp_path / "config.yaml") == found
    with pytest.raises(NautileError, match="cannot be read as a label list"):
        make_options({"labels": str(tmp_path / "none.txt")})


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_every_method_survives_yaml(tmp_path: Path, method: str) -> None:
    options = make_options({"method": method, "class_weights": "balanced"})
    write_config(options, tmp_path / "config.yaml")
    assert make_options({}, tmp_path / "config.yaml") == options


def test_an_option_that_the_method_does_not_use_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    write_config(make_options({"epochs": 3, "rank": 8}), tmp_path / "config.yaml")
    with pytest.raises(NautileError, match="method head does not use rank, epochs; leave that out") as caught:
        make_options({"method": "head"}, tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)
    assert make_options({"method": "head", "epochs": None, "rank": 16}).epochs is None


def test_what_is_unused_is_an_option() -> None:
    assert all(set(names) <= set(Options.model_fields) for names in UNUSED.values())
    assert not set(TRAINING) & set(UNUSED["full"])


def test_what_stands_twice_in_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\nrank: 4\nseed: 2\n")
    with pytest.raises(NautileError, match="seed stands twice"):
        make_options({}, tmp_path / "config.yaml")


def test_a_configuration_may_merge_another_mapping(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("<<: {rank: 4, seed: 1}\nseed: 2\n")
    found = make_options({}, tmp_path / "config.yaml")
    assert (found.rank, found.seed) == (4, 2)


@pytest.mark.parametrize("text", ["!!map abc", "!!map [a]", "[" * 3_000])
def test_odd_yaml_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(NautileError, match="cannot be read as YAML"):
        make_options({}, tmp_path / "config.yaml")


@pytest.mark.parametrize("name", ["learning_rate", "alpha", "weight_decay"])
def test_numbers_are_finite(name: str) -> None:
    with pytest.raises(NautileError, match=f"{name}: Input should be a finite number, not inf"):
        make_options({name: float("inf")})
