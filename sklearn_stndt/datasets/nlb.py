"""Load the files of the Neural Latents Benchmark."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import check_number
from sklearn_stndt.datasets._h5 import H5Group, open_h5
from sklearn_stndt.datasets._nlb_nwb import tensors_from_nwb
from sklearn_stndt.datasets._nlb_parts import (
    INPUTS,
    SpikesPart,
    assemble,
    check_parts,
    source_names,
)
from sklearn_stndt.datasets._nlb_sets import SETS, group_key, is_key, split_key
from sklearn_stndt.datasets._times import scalar_in_seconds

__all__ = ["load_nlb"]

_Paths = str | os.PathLike | Mapping[str, Any]


def load_nlb(
    path: _Paths | Iterable[_Paths],
    *,
    name: str | None = None,
    bin_width: float | None = None,
    follow_links: bool = False,
) -> Bunch:
    """Load a data set of the Neural Latents Benchmark from its h5 or NWB files.

    The benchmark is described in [1]_. Held-in neurons come before held-out neurons, and the bins
    of the trial before the forward bins, if the files have any. Entries that the benchmark hides
    are NaN. So ``STNDTEstimator(heldout_neurons=data.heldout, forecast_bins=data.n_forward)`` can
    be fitted to ``data.X_train``; :func:`make_submission` then infers the rates of a submission.

    Parameters
    ----------
    path : path, or list of paths
        Either h5 files with the training input, the evaluation input and the evaluation target, as
        many of these as you have, in any order; a dictionary of arrays may replace a file. Or NWB
        files: the file of the training trials alone, whose validation trials are then evaluated,
        or this file and the file of the test trials, which lacks the spikes to be predicted.

    name : str, default=None
        Data set, such as "mc_maze_small"; append "_20" for bins of 20 ms. None: inferred from the
        group of the target, or from the number of neurons. Required for NWB files.

    bin_width : float, default=None
        Width of a bin, in seconds. None: inferred from `name` and the number of bins; for NWB
        files 0.005, unless `name` ends in "_20".

    follow_links : bool, default=False
        Whether to read what is stored in other files: external links, external storage and virtual
        datasets. False: a file that names another one is an error. Only for files that you trust,
        as a file can name any file that you can read.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes, None where the files lack the data:

        X_train : ndarray of shape (n_train, n_bins + n_forward, n_neurons), float32
            Spike counts per bin of the training trials.
        X_eval : ndarray of shape (n_eval, n_bins + n_forward, n_neurons), float32
            Spike counts of the evaluation trials, NaN in held-out neurons and in forward bins.
        spikes_eval : ndarray of the shape of `X_eval`, float32
            True spike counts of the evaluation trials, NaN only where unknown.
        heldout : ndarray of int
            Indices of the held-out neurons.
        n_forward : int
            Number of forward bins at the end of `X_train` and `X_eval`.
        y_train, y_eval : ndarray of shape (n_trials, n_bins, 2)
            Hand or finger velocity, already shifted by `lag`. For DMFC_RSG, of shape
            (n_trials, 5): is_eye, theta, is_short, sample interval, produced interval.
        decode_mask_train, decode_mask_eval : ndarray of bool, of shape (n_trials, n_decoders)
            Trials of each velocity decoder (Area2_Bump only).
        psth : ndarray of shape (n_conditions, n_bins, n_neurons)
            Smoothed mean spike counts per bin of each condition.
        conditions_train, conditions_eval : ndarray of int, of shape (n_trials,)
            Condition of each trial as an index into `psth`; -1 for none.
        jitter_train, jitter_eval : ndarray of int, of shape (n_trials,)
            Number of bins by which trials are shifted relative to `psth` (DMFC_RSG only).
        lag : float
            Time by which behaviour lags the spikes, in seconds. `y_train` and `y_eval` are already
            shifted by it.
        bin_width : float
            Width of a bin, in seconds.
        name : str
            Name of the data set.
        target : dict
            Target of :func:`evaluate`; empty without a target file.
        DESCR : str
            Description of the data set.

    Raises
    ------
    ImportError
        If h5py, or pynwb for NWB files, is not installed.
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file cannot be read, lacks a key, holds arrays of inconsistent shapes or values that
        are not possible, names other files, or holds arrays that would take far more memory than
        their size in the file; or if the data set or the bin width cannot be inferred.

    See Also
    --------
    make_submission : Infer rates in the benchmark's format.
    evaluate : Compute the benchmark's scores.

    References
    ----------
    .. [1] Pei, F., Ye, J., et al. (2021). Neural Latents Benchmark '21: Evaluating latent variable
       models of neural population activity. NeurIPS Datasets and Benchmarks. arXiv:2109.04463

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import load_nlb
    >>> train = {
    ...     "train_spikes_heldin": np.zeros((100, 140, 107)),
    ...     "train_spikes_heldout": np.zeros((100, 140, 35)),
    ... }
    >>> data = load_nlb([train, {"eval_spikes_heldin": np.zeros((20, 140, 107))}])
    >>> data.name, data.bin_width, data.X_eval.shape
    ('mc_maze_small', 0.005, (20, 140, 142))
    """
    if not isinstance(path, str | os.PathLike | Mapping):
        if not isinstance(path, Iterable) or not getattr(path, "ndim", 1):
            raise TypeError(
                f"path is a {type(path).__name__}; pass a path, a dictionary of arrays, or a list "
                "of these."
            )
        path = list(path)
    files = path if isinstance(path, list) else [path]
    if not files:
        raise ValueError("path is an empty list; pass at least one file.")
    if any(str(file).endswith(".nwb") for file in files if not isinstance(file, Mapping)):
        return _from_nwb(files, name, bin_width, follow_links)
    with ExitStack() as stack:
        contents = [
            ("the dictionary", file)
            if isinstance(file, Mapping)
            else (str(file), stack.enter_context(open_h5(file, follow_links=follow_links)))
            for file in files
        ]
        return _from_arrays(contents, name, bin_width)


def _from_arrays(
    contents: list[tuple[str, Any]], name: str | None, bin_width: float | None
) -> Bunch:
    """Combine files, each with its name in messages."""
    inputs, groups, sources = _read_inputs(contents)
    parts = check_parts(inputs, sources)
    if not parts:
        files = ", ".join(of_file for of_file, _ in contents)
        raise ValueError(
            f"{files} holds neither train_spikes_heldin nor eval_spikes_heldin, but "
            f"{', '.join(sorted(sources)) or 'no array'}. Pass the benchmark's input files too."
        )
    part = next(iter(parts.values()))
    name, key = _find_set(name, groups, part, sources)
    bin_ms = _find_bin_width(name, key, bin_width, part, sources)
    key = group_key(name, bin_ms)
    if groups and key not in groups:
        raise ValueError(
            f"{source_names(sources)}: there is a target for {sorted(groups)}, but the inputs are "
            f"{key}. Pass the target of the same data set and bin width."
        )
    target = dict(groups.get(key, {}))
    return assemble(
        name, bin_ms / 1000, inputs, target, sources, f"{sources.get(key, 'the target')}: {key}"
    )


def _from_nwb(
    files: list[Any], name: str | None, bin_width: float | None, follow_links: bool
) -> Bunch:
    if name is None:
        raise ValueError(
            f"The data set of {files[0]} cannot be inferred from the file. Pass name=..., one of "
            f"{', '.join(SETS)}."
        )
    other = [file for file in files if not str(file).endswith(".nwb")]
    if other:
        kind = "a dictionary" if isinstance(other[0], Mapping) else other[0]
        raise ValueError(f"NWB files are loaded on their own; leave {kind} out.")
    known, bin_ms = split_key(name)
    if bin_width is not None:
        bin_ms = _whole_ms(bin_width)
    inputs, target = tensors_from_nwb(files, known, bin_ms or 5, follow_links=follow_links)
    source = ", ".join(map(str, files))
    sources = dict.fromkeys(inputs, source)
    return assemble(known, (bin_ms or 5) / 1000, inputs, target, sources, source)


def _whole_ms(bin_width: float) -> int:
    bin_width = scalar_in_seconds(bin_width, "bin_width")
    check_number(bin_width, "bin_width", above=0)
    bin_ms = round(1000 * bin_width)
    if bin_ms < 1 or abs(bin_ms - 1000 * bin_width) > 1e-6:
        raise ValueError(
            f"bin_width={bin_width!r} is not a whole number of milliseconds; pass seconds, such "
            "as 0.005."
        )
    return bin_ms


def _read_inputs(
    contents: list[tuple[str, Any]],
) -> tuple[dict[str, Any], dict[str, Mapping], dict[str, str]]:
    """Return the arrays at the top that are needed, the groups, and the source of each name."""
    inputs: dict[str, Any] = {}
    groups: dict[str, Mapping] = {}
    sources: dict[str, str] = {}
    for source, content in contents:
        for key in content:
            if not isinstance(key, str):
                raise TypeError(f"{source} has the key {key!r}; keys are names of arrays.")
            if key in sources:
                raise ValueError(f"{key} is in {sources[key]} and in {source}; pass one of them.")
            sources[key] = source
            is_file = isinstance(content, H5Group)
            if not is_file or key in INPUTS or is_key(key) or key in content.groups():
                value = content[key]
                if isinstance(value, Mapping):
                    groups[key] = value
                elif is_key(key):
                    raise ValueError(
                        f"{source}: {key} is an array, but the target of a data set is a group of "
                        "arrays. Write it as one."
                    )
                else:
                    inputs[key] = value
    return inputs, groups, sources


def _find_set(
    name: str | None,
    groups: Mapping[str, Mapping],
    part: SpikesPart,
    sources: Mapping[str, str],
) -> tuple[str, str | None]:
    """Return the data set, and its group if that determines the bin width."""
    for key in groups:
        if not is_key(key):
            raise ValueError(
                f"{sources[key]} has the group {key!r}, which is no data set of the benchmark. "
                f"Leave it out; the target of a data set is in a group with its name, one of "
                f"{', '.join(SETS)}."
            )
    if name is not None:
        known, bin_ms = split_key(name)
        keys = [key for key in groups if split_key(key)[0] == known]
        return known, name if bin_ms else keys[0] if len(keys) == 1 else None
    if len(groups) == 1:
        (key,) = groups
        return split_key(key)[0], key
    heldin = part.heldin.shape[2]
    heldout = None if part.heldout is None else part.heldout.shape[2]
    fits = [
        known
        for known, spec in SETS.items()
        if spec.n_heldin == heldin and heldout in (None, spec.n_heldout)
    ]
    if len(fits) != 1:
        raise ValueError(
            f"{source_names(sources)}: no data set of the benchmark has {heldin} held-in and "
            f"{heldout} held-out neurons. Pass name=..., one of {', '.join(SETS)}."
        )
    keys = [key for key in groups if split_key(key)[0] == fits[0]]
    return fits[0], keys[0] if len(keys) == 1 else None


def _find_bin_width(
    name: str,
    key: str | None,
    bin_width: float | None,
    part: SpikesPart,
    sources: Mapping[str, str],
) -> int:
    """Width of a bin, in ms."""
    if bin_width is not None:
        return _whole_ms(bin_width)
    if key is not None:
        return split_key(key)[1] or 5
    start, stop = SETS[name].window
    n_bins = part.heldin.shape[1]
    for bin_ms in (5, 20):
        if n_bins * bin_ms == stop - start:
            return bin_ms
    raise ValueError(
        f"{source_names(sources)}: {n_bins} bins of 5 or 20 ms do not add up to a trial of {name}, "
        f"which lasts {stop - start} ms. Pass bin_width=... in seconds."
    )
