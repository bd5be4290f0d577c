"""Model card: what a model was trained on, its scores and versions, in words and without data."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from sklearn_stndt.persistence.registry import can_be_in_a_file, is_ours, is_sklearn

CARD = "MODEL_CARD.md"
_LONGEST = 200  # characters of a value
_MOST_SECTIONS = 20


def card(estimator: Any, about: dict[str, Any]) -> str:
    """Write the model card of an estimator.

    Parameters
    ----------
    estimator : estimator
    about : dict
        Class, date and versions of the file.

    Returns
    -------
    str
        Markdown.
    """
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        f"# Model card: {about['class']}",
        "",
        f"Saved on {about['saved']} by sklearn_stndt. Load it with `sklearn_stndt.load`.",
        f"Versions: {versions}.",
    ]
    for name, part in _sections(estimator):
        state = "fitted" if _is_fitted(part) else "not fitted"
        lines += ["", f"## {name} ({state})", ""]
        lines += [f"- {line}" for line in _lines(part)]
    return "\n".join(lines) + "\n"


def _sections(estimator: Any) -> list[tuple[str, Any]]:
    """Find the estimators to describe: of several of a class inside another, the first fitted."""
    found: dict[tuple[str, bool], tuple[str, Any]] = {}
    for name, part in _estimators(estimator, type(estimator).__name__, set()):
        found.setdefault((type(part).__name__, _is_fitted(part)), (name, part))
    fitted = {cls for cls, is_fitted in found if is_fitted}
    kept = [
        section for (cls, is_fitted), section in found.items() if is_fitted or cls not in fitted
    ]
    return kept[:_MOST_SECTIONS]


def _estimators(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the estimators in an object, the outer ones first."""
    if id(value) in seen:
        return
    if isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _estimators(one, name if isinstance(value, tuple) else f"{name}[{i}]", seen)
    elif isinstance(value, Sequence) and is_ours(type(value)) and len(value):
        yield from _estimators(value[0], f"{name}[0]", seen)  # the others are on disk too
    elif can_be_in_a_file(type(value)) and not isinstance(value, NeuralNet):
        seen.add(id(value))
        yield (name, value)
        if is_ours(type(value)) or is_sklearn(type(value)):
            # fitted ones first: of several of one class, one is described
            names = sorted(vars(value), key=lambda n: not n.endswith("_"))
            for attribute in names:
                if not attribute.startswith("_"):
                    yield from _estimators(vars(value)[attribute], f"{name}.{attribute}", seen)


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):  # of what cannot be fitted
        return False
    return True


def _lines(estimator: Any) -> Iterator[str]:
    """Describe one estimator."""
    package = type(estimator).__module__.partition(".")[0]
    yield f"class: {type(estimator).__name__} of {package}"
    known = inspect.signature(type(estimator)).parameters
    changed = [
        f"{name}={_short(value)}"
        for name, value in _params(estimator).items()
        if name not in known or _short(value) != _short(known[name].default)
    ]
    yield f"parameters other than the defaults: {', '.join(changed) or 'none'}"
    if not is_ours(type(estimator)):
        return
    yield from _training(estimator)
    for name, value in vars(estimator).items():
        if name.endswith("_") and not name.startswith("_"):
            text = _fitted(value)
            if text:
                yield f"{name}: {text}"


def _params(estimator: Any) -> dict[str, Any]:
    return estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}


def _training(estimator: Any) -> Iterator[str]:
    """Describe the data and the training of a network."""
    trained_on = getattr(estimator, "_trained_on", None)
    module = getattr(getattr(estimator, "net_", None), "module_", None)
    likelihood = getattr(module, "likelihood", None)
    unit = "bits per spike" if likelihood is None else likelihood.unit
    if trained_on:
        n_neurons = trained_on["n_neurons"]
        kind = "(n_trials, n_bins, n_neurons)"
        if len(trained_on["shape"]) == 2:
            kind = "(n_bins, n_neurons)"
        yield f"trained on: counts of shape {tuple(trained_on['shape'])}, {kind}"
        yield (
            f"windows for training: {trained_on['n_windows']} of {trained_on['window']} bins, from "
            f"{trained_on['n_bins']} bins"
        )
        if trained_on.get("bin_width"):
            yield f"bin width: {1000 * trained_on['bin_width']:g} ms"
        if likelihood is None or likelihood.counts:
            yield f"mean count per neuron and bin: {trained_on['spikes_per_bin'] / n_neurons:.4g}"
    history = getattr(estimator, "history_", None)
    if history:
        n_updates = sum(row.get("train_batch_count", 0) for row in history)
        yield f"epochs: {len(history)}; updates: {n_updates}"
        for row in history[::-1]:
            if row.get("kept") and "valid_bits" in row:
                yield (
                    f"validation score: {row['valid_bits']:.4f} {unit}, in epoch "
                    f"{row['epoch']}, whose weights are kept"
                )
                break
    if module is not None:
        yield f"weights: {sum(weight.numel() for weight in module.parameters())}"


def _fitted(value: Any) -> str:
    """Describe a fitted attribute; large arrays, which may be data, by their shape."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf" and value.ndim == 1 and value.size <= 2 * _LONGEST:
            rounded = [float(f"{v:.6g}") if isinstance(v, float) else v for v in value.tolist()]
            return _short(rounded)
        return f"array of {value.dtype}, shape {value.shape}"
    if isinstance(value, bool | int | float | str | np.number):
        return _short(value)
    return ""


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.number):
        value = value.item()
    text = re.sub(" at 0x[0-9a-f]+", "", " ".join(repr(value).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
