"""Combine the arrays of the Neural Latents Benchmark into one Bunch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_stndt.datasets._nlb_sets import SETS, group_key


def check_parts(inputs: Mapping[str, Any], sources: Mapping[str, str]) -> "dict[str, SpikesPart]":
    """Return the spikes of training and of evaluation trials, if present, after checking them."""
    return {
        prefix: SpikesPart(inputs, sources, prefix)
        for prefix in ("train", "eval")
        if f"{prefix}_spikes_heldin" in inputs
    }


def assemble(
    name: str,
    bin_width: float,
    inputs: Mapping[str, NDArray],
    target: Mapping[str, Any],
    sources: Mapping[str, str],
) -> Bunch:
    """Combine the arrays of a data set into a Bunch."""
    parts = check_parts(inputs, sources)
    n_heldin = next(iter(parts.values())).heldin.shape[-1]
    n_heldout, n_forward = 0, 0
    for part in parts.values():
        if part.heldout is not None:
            n_heldout = part.heldout.shape[-1]
        if part.forward is not None:
            n_forward = part.forward.shape[1]
    for known in ("eval_spikes_heldout", "psth"):
        if not n_heldout and known in target:
            n_heldout = target[known].shape[-1] - (n_heldin if known == "psth" else 0)
    if not n_forward and "eval_spikes_heldin_forward" in target and "train" not in parts:
        n_forward = target["eval_spikes_heldin_forward"].shape[1]

    def full(part: SpikesPart | None) -> NDArray | None:
        return None if part is None else part.full(n_heldin, n_heldout, n_forward)

    heldout = np.arange(n_heldin, n_heldin + n_heldout)
    train = parts.get("train")
    spikes_eval = full(parts.get("eval"))
    X_eval = None
    if spikes_eval is not None:
        _add_truth(spikes_eval, target, n_heldin, n_forward, sources)
        X_eval = spikes_eval.copy()
        X_eval[..., heldout] = np.nan
        X_eval[:, X_eval.shape[1] - n_forward :] = np.nan
    n_trials = {prefix: len(part.heldin) for prefix, part in parts.items()}

    def of(prefix: str, key: str) -> NDArray | None:
        key = f"{prefix}_{key}"
        value = target.get(key, inputs.get(key))
        if value is not None and prefix in n_trials and len(value) != n_trials[prefix]:
            raise ValueError(
                f"{_where(sources, key)} has {len(value)} trials, but {prefix}_spikes_heldin has "
                f"{n_trials[prefix]}. Pass files that belong together."
            )
        return value

    behavior = {prefix: of(prefix, "behavior") for prefix in ("train", "eval")}
    masks = {prefix: of(prefix, "decode_mask") for prefix in ("train", "eval")}
    return Bunch(
        X_train=full(train),
        X_eval=X_eval,
        spikes_eval=spikes_eval,
        heldout=heldout,
        n_forward=n_forward,
        **{
            f"y_{prefix}": None if value is None else value.astype(np.float64)
            for prefix, value in behavior.items()
        },
        **{
            f"decode_mask_{prefix}": None if value is None else value.astype(bool)
            for prefix, value in masks.items()
        },
        psth=target.get("psth"),
        **{
            f"conditions_{prefix}": _labels(target.get(f"{prefix}_cond_idx"), n_trials.get(prefix))
            for prefix in ("train", "eval")
        },
        jitter_train=of("train", "jitter"),
        jitter_eval=of("eval", "jitter"),
        lag=SETS[name].lag / 1000,
        bin_width=bin_width,
        name=name,
        target={group_key(name, round(1000 * bin_width)): dict(target)} if target else {},
        DESCR=(
            f"{name} of the Neural Latents Benchmark in bins of {1000 * bin_width:g} ms: "
            f"{n_heldin} held-in and {n_heldout} held-out neurons, {n_forward} forward bins."
        ),
    )


class SpikesPart:
    """Spikes of the training or the evaluation trials, checked."""

    def __init__(self, inputs: Mapping[str, Any], sources: Mapping[str, str], prefix: str) -> None:
        def get(what: str) -> NDArray | None:
            key = f"{prefix}_spikes_{what}"
            if key not in inputs:
                return None
            array = np.asarray(inputs[key])
            if array.ndim != 3 or array.dtype.kind not in "biuf":
                raise ValueError(
                    f"{_where(sources, key)} is {array.dtype} of shape {array.shape}; expected "
                    "counts of shape (n_trials, n_bins, n_neurons). Write the file again."
                )
            return array

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
    sources: Mapping[str, str],
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
                f"{_where(sources, key)} has shape {target[key].shape}, expected {place.shape} "
                "to match the inputs. Pass files that belong together."
            )
        np.copyto(place, target[key], where=np.isnan(place), casting="same_kind")


def _labels(trials_of_condition: Any, n_trials: int | None) -> NDArray | None:
    """Condition of each trial, -1 for none."""
    if trials_of_condition is None or n_trials is None:
        return None
    labels = np.full(n_trials, -1)
    for condition, trials in enumerate(trials_of_condition):
        labels[np.asarray(trials, dtype=int)] = condition
    return labels


def _where(sources: Mapping[str, str], key: str) -> str:
    return f"{sources.get(key, 'the data')}: {key}"


def source_names(sources: Mapping[str, str]) -> str:
    """Names of the files, for error messages."""
    return ", ".join(sorted(set(sources.values())))
