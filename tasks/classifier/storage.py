"""A fitted `Classifier` as a folder: the model in its own format, and ``classifier.json``; nothing is pickled."""

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nautile.errors import NautileError, first_line
from nautile.model.places import check_new
from nautile.tasks.calibrate import Calibration
from nautile.tasks.classifier.fitting import Fitted, LinearModel
from nautile.tasks.classifier.linear import Linear, Recipe
from nautile.tasks.classifier.names import names_of
from nautile.tasks.classifier.targets import Targets
from nautile.tasks.classifier.tuned import Tuned
from nautile.tasks.classifier.vectors import absolute
from nautile.tasks.evaluate.checks import check_folder, make_folder

NAME = "classifier.json"
FORMAT = 1
TYPES = "OUbiuf"  # kinds of NumPy dtypes that classes may have

C = TypeVar("C")


def save(classifier: Any, folder: Path) -> None:
    """Write a new folder.

    Raises:
        NautileError: a folder that is not empty, or classes that are neither texts nor numbers.
    """
    check_folder(folder)
    check_new(folder)
    fitted, targets = classifier._fitted, classifier._targets
    plain = all(isinstance(label, str | bool | int | float) for label in targets.classes.tolist())
    if not plain or targets.classes.dtype.kind not in TYPES:
        raise NautileError("classes that are neither texts nor numbers cannot be saved; pickle the Classifier instead")
    known = {
        "format": FORMAT,
        "parameters": _plain(classifier.get_params(deep=False)),
        "classes": targets.classes.tolist(),
        "classes_dtype": str(targets.classes.dtype),
        "form": targets.form,
        "dtype": targets.dtype,
        "method": fitted.method,
        "recipe": fitted.recipe,
        "calibration": None if fitted.calibration is None else fitted.calibration.model_dump(),
    }
    text = json.dumps(known, indent=1, ensure_ascii=False, default=_told) + "\n"
    make_folder(folder)
    if isinstance(fitted.model, Tuned):
        fitted.model.write(folder)
    else:
        _head(fitted, targets).save(folder)
    (folder / NAME).write_text(text, encoding="utf-8")


def load(kind: type[C], folder: Path) -> C:
    """Read a folder.

    Raises:
        NautileError: no such folder, or a damaged one.
    """
    try:
        known = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if known["format"] != FORMAT:
            raise NautileError(f"{folder}: written by another version of nautile (format {known['format']})")
        classes = np.array(known["classes"], dtype=np.dtype(known["classes_dtype"]))
        calibration = known["calibration"]
        targets = Targets(classes, np.zeros((0, len(classes))), known["form"], known["dtype"])
        fitted = Fitted(
            _model(folder, known, len(classes)),
            known["method"],
            None if calibration is None else Calibration.model_validate(calibration),
            None if known["recipe"] is None else Recipe(*known["recipe"]),
        )
        classifier: Any = kind(**_restored(known["parameters"]))
    except NautileError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = first_line(error)
        raise NautileError(f"{folder}: not a saved Classifier ({type(error).__name__}: {reason})") from None
    loaded: C = classifier._take(fitted, targets)
    return loaded


def _head(fitted: Fitted, targets: Targets) -> Any:
    import torch

    from nautile.tasks.heads.head import Head

    assert isinstance(fitted.model, LinearModel)
    assert fitted.recipe is not None
    names = tuple(names_of(targets))
    model, linear = fitted.model, fitted.model.linear
    weight_CD, bias_C = torch.from_numpy(linear.weight_CD), torch.from_numpy(linear.bias_C)
    words_SC = None if linear.words_SC is None else torch.from_numpy(linear.words_SC)
    about = {"base": model.base, "base_digest": model.digest, "method": "linear", **fitted.recipe._asdict()}
    return Head(names, weight_CD, bias_C, targets.kind, fitted.calibration, None, True, about, words_SC)


def _model(folder: Path, known: dict[str, Any], classes: int) -> LinearModel | Tuned:
    from nautile.tasks.heads.head import load_head

    if known["method"] != "linear":
        return Tuned({name: content for name, content in Tuned.read(folder).files.items() if name != NAME})
    head = load_head(folder)
    if len(head.labels) != classes:
        raise NautileError(f"{folder}: {len(head.labels)} labels in head.json, {classes} classes in {NAME}")
    words_SC = None if head.words_SC is None else head.words_SC.numpy()
    linear = Linear(head.weight_CD.numpy(), head.bias_C.numpy(), words_SC)
    return LinearModel(str(head.about["base"]), linear, str(head.about.get("base_digest", "")))


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """What JSON has a word for; class weights as pairs, for their keys need not be texts; a base's path as absolute."""
    found = {}
    for name, value in {**parameters, "base": absolute(parameters["base"])}.items():
        if name == "class_weight" and isinstance(value, dict):
            value = [[_scalar(label), float(weight)] for label, weight in value.items()]
        value = _scalar(value)
        if value is None or isinstance(value, bool | int | float | str) or name in ("class_weight", "finetune_options"):
            found[name] = value
    return found


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value


def _told(value: Any) -> Any:
    """A value of `finetune_options` in a type that JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise NautileError(
        f"finetune_options holds a value of type {type(value).__name__}, which cannot be saved; use plain values"
    )


def _restored(parameters: dict[str, Any]) -> dict[str, Any]:
    weights = parameters.get("class_weight")
    return {**parameters, "class_weight": dict(map(tuple, weights))} if isinstance(weights, list) else parameters
