"""Make, save and score submissions to the Neural Latents Benchmark."""

import os
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt.datasets._checks import as_numbers
from sklearn_stndt.datasets._h5 import open_h5, write_h5
from sklearn_stndt.datasets._nlb_parts import check_conditions
from sklearn_stndt.datasets._nlb_sets import SETS, group_key
from sklearn_stndt.metrics import co_bps, fp_bps, psth_r2, tp_corr, velocity_r2

__all__ = ["evaluate", "load_submission", "make_submission", "save_submission"]

_NEEDED = ("eval_rates_heldin", "eval_rates_heldout")


def make_submission(estimator: Any, data: Any) -> dict[str, dict[str, NDArray]]:
    """Infer the rates of a submission to the Neural Latents Benchmark.

    In training trials, held-out neurons and forward bins are NaN in the input of the estimator, as
    in evaluation trials. So the velocity decoder is fitted to the same kind of rates that it is
    scored on.

    Parameters
    ----------
    estimator : fitted estimator with `transform`
        Such as :class:`~sklearn_stndt.STNDTEstimator`, fitted to ``data.X_train``.

    data : Bunch
        Data set, as returned by :func:`load_nlb`.

    Returns
    -------
    submission : dict of dict of ndarray
        Rates in spikes per bin, under the name of the data set. To submit several data sets at
        once, merge their dictionaries: ``large | medium | small``.

    Raises
    ------
    ValueError
        If `data` lacks training or evaluation trials, or if the rates have the wrong shape, are
        negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt import STNDTEstimator
    >>> from sklearn_stndt.datasets import load_nlb, make_submission
    >>> counts = np.random.default_rng(0).poisson(0.1, size=(20, 30, 65))
    >>> data = load_nlb(
    ...     {
    ...         "train_spikes_heldin": counts[:12, :, :49],
    ...         "train_spikes_heldout": counts[:12, :, 49:],
    ...         "eval_spikes_heldin": counts[12:, :, :49],
    ...     }
    ... )
    >>> network = STNDTEstimator(heldout_neurons=data.heldout, max_epochs=2, random_state=0)
    >>> submission = make_submission(network.fit(data.X_train), data)
    >>> submission["area2_bump_20"]["eval_rates_heldout"].shape
    (8, 30, 16)
    """
    n_heldin, n_forward = int(data.heldout[0]) if len(data.heldout) else 0, int(data.n_forward)
    if not n_heldin:
        raise ValueError("data has no held-out neurons, which are what the benchmark scores.")
    arrays = {}
    for part in ("train", "eval"):
        X = data[f"X_{part}"]
        if X is None:
            raise ValueError(
                f"data has no X_{part}, but a submission needs rates of both training and "
                "evaluation trials. Load both input files."
            )
        n_bins = X.shape[1] - n_forward
        rates = _infer(estimator, X, n_heldin, n_bins)
        arrays[f"{part}_rates_heldin"] = rates[:, :n_bins, :n_heldin]
        arrays[f"{part}_rates_heldout"] = rates[:, :n_bins, n_heldin:]
        if n_forward and part == "eval":
            arrays["eval_rates_heldin_forward"] = rates[:, n_bins:, :n_heldin]
            arrays["eval_rates_heldout_forward"] = rates[:, n_bins:, n_heldin:]
    return {group_key(data.name, round(1000 * data.bin_width)): arrays}


def save_submission(
    submission: Mapping[str, Mapping[str, Any]],
    path: str | os.PathLike,
    *,
    overwrite: bool = False,
) -> None:
    """Write a submission to an h5 file in the benchmark's format, with rates as float32.

    Parameters
    ----------
    submission : dict of dict of ndarray
        Submission returned by :func:`make_submission`, or several of them merged.

    path : path
        File to write.

    overwrite : bool, default=False
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is False.
    ImportError
        If h5py is not installed.
    ValueError
        If the submission lacks a key or names no data set of the benchmark.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import load_submission, save_submission
    >>> rates = {"eval_rates_heldin": np.ones((2, 3, 4)), "eval_rates_heldout": np.ones((2, 3, 1))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_submission({"mc_rtt": rates}, Path(folder) / "submission.h5")
    ...     sorted(load_submission(Path(folder) / "submission.h5")["mc_rtt"])
    ['eval_rates_heldin', 'eval_rates_heldout']
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is a {type(path).__name__}; pass the path of the file to write.")
    path = Path(path).expanduser()
    if not isinstance(submission, Mapping):
        raise TypeError(
            f"submission is a {type(submission).__name__}; pass a dictionary of make_submission."
        )
    _check_submission(submission, "the submission")
    submission = {
        key: {
            inner: as_numbers(array, f"the submission: {key}/{inner}", remedy="Leave it out.")
            for inner, array in _arrays_of(arrays, f"the submission: {key}").items()
        }
        for key, arrays in submission.items()
    }
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass overwrite=True to replace it.")
    write_h5(submission, path)


def load_submission(
    path: str | os.PathLike, *, follow_links: bool = False
) -> dict[str, dict[str, NDArray]]:
    """Read a submission from an h5 file.

    Parameters
    ----------
    path : path
        File in the benchmark's format.

    follow_links : bool, default=False
        Whether to read what is stored in other files; see :func:`load_nlb`.

    Returns
    -------
    submission : dict of dict of ndarray
        Submission in the form returned by :func:`make_submission`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If h5py is not installed.
    ValueError
        If the file cannot be read, lacks a key, names no data set of the benchmark or names
        another file, or holds arrays that would take far more memory than their size in the file.

    See Also
    --------
    save_submission : Write the file; with an example.
    """
    with open_h5(path, follow_links=follow_links) as submission:
        _check_submission(submission, str(path))
        return {key: _arrays_of(submission[key], f"{path}: {key}") for key in submission}


def _arrays_of(group: Mapping[str, Any], name: str) -> dict[str, NDArray]:
    """Read all arrays of a group; those with rates are checked."""
    arrays = dict(group)
    for key in arrays:
        if isinstance(arrays[key], Mapping):
            raise ValueError(f"{name}/{key} is a group, but an array is expected. Leave it out.")
        if "_rates_" not in key:
            continue
        shape = ("n_trials", "n_bins", "n_neurons")
        arrays[key] = as_numbers(arrays[key], f"{name}/{key}", shape, remedy="Leave it out.")
    return arrays


def evaluate(
    target: Any, submission: Any, *, check: bool = True
) -> list[dict[str, dict[str, float]]]:
    """Score a submission as in the Neural Latents Benchmark.

    Parameters
    ----------
    target : path, dict, or Bunch
        Target file of the benchmark or its content, or the data set returned by :func:`load_nlb`.

    submission : path or dict
        File written by :func:`save_submission`, or rates returned by :func:`make_submission`.

    check : bool, default=True
        Warn if rates look like Hz or like copies of the spikes; see
        :func:`~sklearn_stndt.metrics.co_bps`.

    Returns
    -------
    scores : list of dict
        One dictionary per data set, ``{"mc_maze_split": {"co-bps": ..., "vel R2": ..., "psth R2":
        ..., "fp-bps": ...}}``, with "tp corr" instead of "vel R2" for DMFC_RSG. The data sets
        mc_maze_large, mc_maze_medium and mc_maze_small share the entry "mc_maze_scaling_split",
        with keys such as "[500] co-bps". With bins of 20 ms, names are such as
        "mc_maze_20_split".

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ImportError
        If a path is given and h5py is not installed.
    ValueError
        If a file cannot be read or lacks a key, if shapes are inconsistent, or if target and
        submission have no data set in common.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import evaluate
    >>> rng = np.random.default_rng(0)
    >>> rates = rng.gamma(1.0, size=(20, 30, 5))
    >>> spikes, velocity = rng.poisson(rates), rates[..., :2]
    >>> target = {
    ...     "eval_spikes_heldout": spikes[10:, :, 4:],
    ...     "train_behavior": velocity[:10],
    ...     "eval_behavior": velocity[10:],
    ... }
    >>> submission = {
    ...     f"{part}_rates_{which}": rates[trials, :, neurons]
    ...     for part, trials in (("train", slice(10)), ("eval", slice(10, None)))
    ...     for which, neurons in (("heldin", slice(4)), ("heldout", slice(4, None)))
    ... }
    >>> evaluate({"mc_rtt_20": target}, {"mc_rtt_20": submission})
    [{'mc_rtt_20_split': {'co-bps': 0.59..., 'vel R2': 0.99...}}]
    """
    with ExitStack() as stack:
        target, target_name = _content(getattr(target, "target", target), "the target", stack)
        submission, submission_name = _content(submission, "the submission", stack)
        return _evaluate(target, target_name, submission, submission_name, check)


def _evaluate(
    target: Mapping[str, Any],
    target_name: str,
    submission: Mapping[str, Any],
    submission_name: str,
    check: bool,
) -> list[dict[str, dict[str, float]]]:
    _check_submission(submission, submission_name)
    results: list[dict[str, dict[str, float]]] = []
    scaling: dict[str, dict[str, float]] = {}
    left_out = []
    for name, spec in SETS.items():
        for bin_ms in (5, 20):
            key = group_key(name, bin_ms)
            if key not in submission:
                continue
            if key not in target:
                left_out.append(key)
                continue
            if not isinstance(target[key], Mapping):
                raise ValueError(f"{target_name}: {key} is an array; expected a group of arrays.")
            truth = _Group(target[key], f"{target_name}: {key}")
            rates = _Group(submission[key], f"{submission_name}: {key}")
            try:
                scores = _score(name, truth, rates, check)
            except ValueError as error:
                if str(error).startswith((truth.name, rates.name)):
                    raise
                raise ValueError(f"{truth.name} and {rates.name}: {error}") from error
            if spec.n_train is None:
                results.append({f"{key}_split": scores})
            else:
                group = scaling.setdefault(group_key("mc_maze_scaling", bin_ms), {})
                group.update({f"[{spec.n_train}] {score}": v for score, v in scores.items()})
    if not results and not scaling:
        raise ValueError(
            f"{target_name} holds {sorted(target)} and {submission_name} holds "
            f"{sorted(submission)}, which have no data set in common. Both need the same name and "
            "the same bin width."
        )
    if check and left_out:
        warnings.warn(
            f"{target_name} holds no target for {', '.join(left_out)}, which are not scored. "
            "check=False silences this.",
            UserWarning,
            stacklevel=3,
        )
    results += [{f"{key}_split": scaling[key]} for key in sorted(scaling, key=len)]
    return results


class _Group:
    """Arrays of one data set; a missing array raises an error that names file and key."""

    def __init__(self, arrays: Mapping[str, Any], name: str) -> None:
        self.arrays = arrays
        self.name = name

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def get(self, key: str, like: tuple[int | None, ...] | None = None) -> NDArray:
        """Return an array as float64 after checking its shape."""
        if key not in self.arrays:
            raise ValueError(
                f"{self.name} lacks {key}, and holds {sorted(self.arrays)}. Add {key} to it."
            )
        remedy = "Do target and submission have the same trials, neurons and bin width?"
        array = as_numbers(self.arrays[key], f"{self.name}/{key}", like, remedy=remedy)
        return array.astype(np.float64)


def _score(name: str, truth: _Group, rates: _Group, check: bool) -> dict[str, float]:
    heldout = truth.get("eval_spikes_heldout", (None, None, None))
    heldout_rates = rates.get("eval_rates_heldout", heldout.shape)
    heldin_rates = rates.get("eval_rates_heldin", (*heldout.shape[:2], None))
    eval_rates = np.concatenate([heldin_rates, heldout_rates], axis=-1)
    n_neurons = eval_rates.shape[-1]
    behavior = truth.get("eval_behavior")
    scores = {"co-bps": co_bps(heldout, heldout_rates, check=check)}
    if name == "dmfc_rsg":
        inside = ~np.isnan(heldout[..., 0])  # from set to go
        scores["tp corr"] = tp_corr(
            behavior[:, -1], eval_rates, behavior[:, :3], mask=inside, check=check
        )
    else:
        train_behavior = truth.get("train_behavior")
        n_train, n_bins = train_behavior.shape[:2]
        train_rates = np.concatenate(
            [
                rates.get("train_rates_heldin", (n_train, n_bins, heldin_rates.shape[-1])),
                rates.get("train_rates_heldout", (n_train, n_bins, heldout.shape[-1])),
            ],
            axis=-1,
        )
        masks: dict[str, Any] = {}
        if "train_decode_mask" in truth:
            masks["train_decode_mask"] = truth.get("train_decode_mask")
            masks["decode_mask"] = truth.get("eval_decode_mask")
        scores["vel R2"] = velocity_r2(
            behavior, eval_rates, train_behavior, train_rates, check=check, **masks
        )
    if "psth" in truth:
        psth = truth.get("psth", (None, eval_rates.shape[1], n_neurons))
        if "eval_cond_idx" not in truth:
            raise ValueError(f"{truth.name} holds psth but lacks eval_cond_idx. Add it.")
        trials = check_conditions(
            truth.arrays["eval_cond_idx"], len(eval_rates), f"{truth.name}/eval_cond_idx"
        )
        jitter = truth.get("eval_jitter") if "eval_jitter" in truth else None
        scores["psth R2"] = psth_r2(psth, eval_rates, trials, jitter=jitter)
    if "eval_rates_heldin_forward" in rates and "eval_spikes_heldin_forward" in truth:
        pairs = []
        for which in ("heldin", "heldout"):
            ahead = truth.get(f"eval_spikes_{which}_forward", (len(heldout), None, None))
            pairs.append((ahead, rates.get(f"eval_rates_{which}_forward", ahead.shape)))
        ahead, forecast = (np.concatenate(arrays, axis=-1) for arrays in zip(*pairs, strict=True))
        scores["fp-bps"] = fp_bps(ahead, forecast, check=check)
    return scores


def _infer(estimator: Any, X: NDArray, n_heldin: int, n_bins: int) -> NDArray:
    hidden = X.copy()
    hidden[..., n_heldin:] = np.nan
    hidden[:, n_bins:] = np.nan
    rates = np.asarray(estimator.transform(hidden))
    if rates.shape != X.shape:
        raise ValueError(
            f"{type(estimator).__name__}.transform returned shape {rates.shape} for an input of "
            f"shape {X.shape}; a submission needs a rate for every entry."
        )
    if not np.isfinite(rates).all() or rates.min() < 0:
        raise ValueError(
            f"{type(estimator).__name__}.transform returned rates that are negative or not finite. "
            "A submission needs expected spikes per bin, also where the input is NaN."
        )
    return rates


def _content(source: Any, name: str, stack: ExitStack) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, name
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"{name} is a {type(source).__name__}; pass a path or a dictionary.")
    return stack.enter_context(open_h5(source)), str(source)


def _check_submission(submission: Mapping[str, Any], name: str) -> None:
    known = [group_key(dataset, bin_ms) for dataset in SETS for bin_ms in (5, 20)]
    for key in submission:
        if key not in known or not isinstance(arrays := submission[key], Mapping):
            raise ValueError(
                f"{name} holds {key!r}, which is not a data set of the benchmark. Put the rates of "
                f"a data set into a group with its name, one of {', '.join(known)}."
            )
        for needed in _NEEDED:
            if needed not in arrays:
                raise ValueError(
                    f"{name}: {key} lacks {needed}, and holds {sorted(arrays)}. Create it with "
                    "make_submission."
                )
