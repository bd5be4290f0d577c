"""Combine the arrays of the Neural Latents Benchmark into one Bunch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import as_flags, as_indices, as_numbers
from sklearn_stndt.datasets._loaded import Loaded
from sklearn_stndt.datasets._nlb_sets import SETS, group_key

_PARTS = ("train", "eval")
_SPIKES = ("heldin", "heldout", "heldin_forward", "heldout_forward")
# arrays outside of groups that are used
INPUTS = frozenset(
    f"{part}_{key}"
    for part in _PARTS
    for key in (*(f"spikes_{which}" for which in _SPIKES), "behavior", "decode_mask", "jitter")
)
_TOGETHER = "Pass files that belong together."


def check_parts(inputs: Mapping[str, Any], sources: Mapping[str, str]) -> "dict[str, SpikesPart]":
    """Return the spikes of training and of evaluation trials, if present, after checking them."""
    parts = {}
    for prefix in _PARTS:
        found = [key for which in _SPIKES if (key := f"{prefix}_spikes_{which}") in inputs]
        heldin = f"{prefix}_spikes_heldin"
        if found and heldin not in found:
            raise ValueError(
                f"{_where(sources, found[0])} comes without {heldin}. Write the input again, or "
                "pass the file that holds it too."
            )
        if found:
            parts[prefix] = SpikesPart(inputs, sources, prefix)
    return parts


def assemble(
    name: str,
    bin_width: float,
    inputs: Mapping[str, NDArray],
    target: Mapping[str, Any],
    sources: Mapping[str, str],
    target_name: str,
) -> Bunch:
    """Combine the arrays of a data set into a Bunch."""
    parts = check_parts(inputs, sources)
    target = check_target(target, target_name)
    first = next(iter(parts.values()))
    n_bins, n_heldin = first.heldin.shape[1:]
    n_heldout, n_forward = 0, 0
    for part in parts.values():
        if part.heldout is not None:
            n_heldout = part.heldout.shape[-1]
        if part.forward is not None:
            n_forward = part.forward.shape[1]
    for known in ("eval_spikes_heldout", "psth"):
        if not n_heldout and known in target:
            n_heldout = target[known].shape[-1] - (n_heldin if known == "psth" else 0)
            if n_heldout < 0:
                raise ValueError(
                    f"{target_name}/{known} has {n_heldin + n_heldout} neurons, but there are "
                    f"{n_heldin} held-in ones. {_TOGETHER}"
                )
    if not n_forward and "eval_spikes_heldin_forward" in target and "train" not in parts:
        n_forward = target["eval_spikes_heldin_forward"].shape[1]

    def full(part: SpikesPart | None) -> NDArray | None:
        return None if part is None else part.full(n_heldin, n_heldout, n_forward)

    heldout = np.arange(n_heldin, n_heldin + n_heldout)
    train = parts.get("train")
    spikes_eval = full(parts.get("eval"))
    X_eval = None
    if spikes_eval is not None:
        _add_truth(spikes_eval, target, n_heldin, n_forward, target_name)
        X_eval = spikes_eval.copy()
        X_eval[..., heldout] = np.nan
        X_eval[:, X_eval.shape[1] - n_forward :] = np.nan
    n_trials = {prefix: len(part.heldin) for prefix, part in parts.items()}

    def of(prefix: str, key: str, meaning: str) -> tuple[NDArray | None, str]:
        """Return an array with an entry for each trial, and its name in messages."""
        key = f"{prefix}_{key}"
        where = f"{target_name}/{key}" if key in target else _where(sources, key)
        value = target.get(key, inputs.get(key))
        if value is None:
            return None, where
        array = as_numbers(value, where, meaning=meaning)
        if not array.ndim or (prefix in n_trials and len(array) != n_trials[prefix]):
            raise ValueError(
                f"{where} has {len(array) if array.ndim else 'no'} trials, but "
                f"{prefix}_spikes_heldin has {n_trials.get(prefix)}. {_TOGETHER}"
            )
        return array, where

    bunch: dict[str, Any] = {}
    for prefix in _PARTS:
        value, where = of(prefix, "behavior", "behaviour")
        if value is not None:
            if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[1] != n_bins):
                raise ValueError(
                    f"{where} has shape {value.shape}; expected one row per trial, or the "
                    f"{n_bins} bins of each. {_TOGETHER}"
                )
            value = value.astype(np.float64)
        bunch[f"y_{prefix}"] = value
        value, where = of(prefix, "decode_mask", "True and False")
        bunch[f"decode_mask_{prefix}"] = None if value is None else as_flags(value, where)
        value, where = of(prefix, "jitter", "numbers of bins")
        if value is not None:
            as_numbers(value, where, ("n_trials",), meaning="numbers of bins", finite=True)
        bunch[f"jitter_{prefix}"] = value
        bunch[f"conditions_{prefix}"] = _labels(
            target.get(f"{prefix}_cond_idx"),
            n_trials.get(prefix),
            f"{target_name}/{prefix}_cond_idx",
        )
    psth = target.get("psth")
    if psth is not None and psth.shape[1:] != (n_bins, n_heldin + n_heldout):
        raise ValueError(
            f"{target_name}/psth has shape {psth.shape}; expected {n_bins} bins and "
            f"{n_heldin + n_heldout} neurons. {_TOGETHER}"
        )
    return Loaded(
        X_train=full(train),
        X_eval=X_eval,
        spikes_eval=spikes_eval,
        heldout=heldout,
        n_forward=n_forward,
        psth=psth,
        **bunch,
        lag=SETS[name].lag / 1000,
        bin_width=bin_width,
        name=name,
        target={group_key(name, round(1000 * bin_width)): dict(target)} if target else {},
        DESCR=(
            f"{name} of the Neural Latents Benchmark in bins of {1000 * bin_width:g} ms: "
            f"{n_heldin} held-in and {n_heldout} held-out neurons, {n_forward} forward bins."
        ),
    )


def check_target(target: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the arrays of a target; those that are used are checked."""
    arrays = dict(target)
    for which in _SPIKES:
        key = f"eval_spikes_{which}"
        if key in arrays:
            arrays[key] = check_spikes(arrays[key], f"{name}/{key}")
    if "psth" in arrays:
        arrays["psth"] = as_numbers(
            arrays["psth"],
            f"{name}/psth",
            ("n_conditions", "n_bins", "n_neurons"),
            meaning="mean counts",
        )
    return arrays


def check_spikes(counts: Any, where: str) -> NDArray:
    """Return counts, (n_trials, n_bins, n_neurons), NaN where not known."""
    return as_numbers(
        counts,
        where,
        ("n_trials", "n_bins", "n_neurons"),
        meaning="counts",
        at_least=0,
    )


class SpikesPart:
    """Spikes of the training or the evaluation trials, checked."""

    def __init__(self, inputs: Mapping[str, Any], sources: Mapping[str, str], prefix: str) -> None:
        def get(what: str) -> NDArray | None:
            key = f"{prefix}_spikes_{what}"
            if key not in inputs:
                return None
            return check_spikes(inputs[key], _where(sources, key))

        heldin = get("heldin")
        assert heldin is not None  # parts are created only for existing keys
        self.heldin: NDArray = heldin
        self.heldout = get("heldout")
        if prefix == "train" and self.heldout is None:
            raise ValueError(
                f"{_where(sources, 'train_spikes_heldin')} comes without train_spikes_heldout. "
                "Write the training input again, or pass the file that holds it."
            )
        ahead = [get("heldin_forward"), get("heldout_forward")]
        self.forward = ahead[0]
        self.heldout_forward = ahead[1]
        if (ahead[0] is None) != (ahead[1] is None) and prefix == "train":
            raise ValueError(
                f"{source_names(sources)} holds only one of train_spikes_heldin_forward and "
                "train_spikes_heldout_forward; forward bins need both."
            )
        n_trials, n_bins, n_neurons = self.heldin.shape
        wanted = {
            "heldout": (n_trials, n_bins, None),
            "heldin_forward": (n_trials, None, n_neurons),
            "heldout_forward": (
                n_trials,
                None if ahead[0] is None else ahead[0].shape[1],
                None if self.heldout is None else self.heldout.shape[2],
            ),
        }
        for what, shape in wanted.items():
            array = get(what)
            if array is not None and any(
                want is not None and have != want
                for have, want in zip(array.shape, shape, strict=True)
            ):
                raise ValueError(
                    f"{_where(sources, f'{prefix}_spikes_{what}')} has shape {array.shape}, which "
                    f"does not fit {prefix}_spikes_heldin of shape {self.heldin.shape}. Pass files "
                    "that belong together."
                )

    def full(self, n_heldin: int, n_heldout: int, n_forward: int) -> NDArray:
        """All counts, (n_trials, n_bins + n_forward, n_neurons), float32, NaN where unknown."""
        n_trials, n_bins, n_neurons = self.heldin.shape
        if n_neurons != n_heldin:
            raise ValueError(
                f"eval_spikes_heldin has {n_neurons} neurons, but train_spikes_heldin has "
                f"{n_heldin}. Pass files of one data set."
            )
        spikes = np.full(
            (n_trials, n_bins + n_forward, n_heldin + n_heldout), np.nan, dtype=np.float32
        )
        spikes[:, :n_bins, :n_heldin] = self.heldin
        if self.heldout is not None:
            if self.heldout.shape[2] != n_heldout:
                raise ValueError(
                    f"eval_spikes_heldout has {self.heldout.shape[2]} neurons, but "
                    f"train_spikes_heldout has {n_heldout}. Pass files of one data set."
                )
            spikes[:, :n_bins, n_heldin:] = self.heldout
        if self.forward is not None and self.heldout_forward is not None:
            spikes[:, n_bins:, :n_heldin] = self.forward
            spikes[:, n_bins:, n_heldin:] = self.heldout_forward
        return spikes


def _add_truth(
    spikes: NDArray,
    target: Mapping[str, Any],
    n_heldin: int,
    n_forward: int,
    target_name: str,
) -> None:
    """Fill unknown spikes of the evaluation trials with those of the target, in place."""
    n_bins = spikes.shape[1] - n_forward
    places = {
        "eval_spikes_heldout": spikes[:, :n_bins, n_heldin:],
        "eval_spikes_heldin_forward": spikes[:, n_bins:, :n_heldin],
        "eval_spikes_heldout_forward": spikes[:, n_bins:, n_heldin:],
    }
    for key, place in places.items():
        if key not in target or (key.endswith("forward") and not n_forward):
            continue
        if target[key].shape != place.shape:
            raise ValueError(
                f"{target_name}/{key} has shape {target[key].shape}, expected {place.shape} to "
                f"match the inputs. {_TOGETHER}"
            )
        np.copyto(place, target[key].astype(np.float32), where=np.isnan(place))


def _labels(trials_of_condition: Any, n_trials: int | None, where: str) -> NDArray | None:
    """Condition of each trial, -1 for none."""
    if trials_of_condition is None or n_trials is None:
        return None
    labels = np.full(n_trials, -1)
    for condition, trials in enumerate(check_conditions(trials_of_condition, n_trials, where)):
        labels[trials] = condition
    return labels


def check_conditions(trials: Any, n_trials: int, where: str) -> list[NDArray[np.intp]]:
    """Return the trials of each condition as indices."""
    if isinstance(trials, str | bytes) or not np.iterable(trials):
        raise ValueError(
            f"{where} is {trials!r}; expected the trials of each condition. Write the file again."
        )
    remedy = "Number the trials of a condition from 0."
    conditions = [
        as_indices(of_one, f"{where}[{condition}]", n_trials, remedy=remedy)
        for condition, of_one in enumerate(trials)
    ]
    number = np.bincount(np.concatenate([np.empty(0, np.intp), *conditions]), minlength=1)
    if number.max() > 1:
        raise ValueError(
            f"{where}: trial {number.argmax()} is named {number.max()} times, but a trial has one "
            "condition. Name each trial once."
        )
    return conditions


def _where(sources: Mapping[str, str], key: str) -> str:
    return f"{sources.get(key, 'the data')}: {key}"


def source_names(sources: Mapping[str, str]) -> str:
    """Names of the files, for error messages."""
    return ", ".join(sorted(set(sources.values())))
