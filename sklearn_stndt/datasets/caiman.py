"""Load recordings that CaImAn has processed."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import as_indices, as_numbers
from sklearn_stndt.datasets._h5 import H5Group, open_h5
from sklearn_stndt.datasets._imaging import as_recording, check_fps, check_frames

__all__ = ["load_caiman"]

# For each signal: arrays in `estimates`, which are added, and what to do if they are missing.
_SIGNALS = {
    "dff": (("F_dff",), "Call estimates.detrend_df_f() in CaImAn before saving, or pass another"),
    "spks": (("S",), "Run CaImAn's deconvolution (p=1 or p=2), or pass another"),
    "F": (("C", "YrA"), "Pass another"),
    "C": (("C",), "Pass another"),
}
_AGAIN = "Save it again from CaImAn."


def load_caiman(
    path: str | os.PathLike,
    *,
    signal: str = "dff",
    fps: float | None = None,
    only_cells: bool = True,
    follow_links: bool = False,
) -> Bunch:
    """Load calcium imaging from an HDF5 file of CaImAn.

    Parameters
    ----------
    path : path
        File that CaImAn's ``cnmf.save`` has written. Needs ``pip install "sklearn-stndt[io]"``.

    signal : {"dff", "spks", "F", "C"}, default="dff"
        What to return:

        - "dff": dF/F (`F_dff`);
        - "spks": deconvolved activity (`S`), from which rates are inferred best;
        - "F": fluorescence, the sum of denoised traces and residuals (`C` + `YrA`);
        - "C": denoised traces.

    fps : float, default=None
        Frames per second. None: as in CaImAn's parameters (`params/data/fr`).

    only_cells : bool, default=True
        Whether to leave out components that CaImAn's evaluation rejected (`idx_components`).
        Without an evaluation in the file, all components are loaded.

    follow_links : bool, default=False
        Whether to read what is stored in other files, as in :func:`load_nwb`. Only for files that
        you trust.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        `signals` of shape (n_frames, n_neurons), `time`, `neuron_ids` (numbers of the components),
        `signal`, `fps` and `bin_width`, as from :func:`load_suite2p`.

    Raises
    ------
    ImportError
        If h5py is not installed.
    FileNotFoundError
        If the file does not exist.
    TypeError
        If an argument is of another type.
    ValueError
        If an argument is out of range; if the file cannot be read, names other files, holds arrays
        that would take far more memory than their size in the file, or has no such signal; if `fps`
        is not known; or if no neuron is left.

    See Also
    --------
    align_signals : Trials around events.
    load_suite2p, load_nwb_ophys : Other formats.

    Examples
    --------
    >>> from sklearn_stndt.datasets import load_caiman
    >>> data = load_caiman("session_cnmf.hdf5", signal="spks")  # doctest: +SKIP
    """
    if not isinstance(signal, str) or signal not in _SIGNALS:
        raise ValueError(f'signal must be "dff", "spks", "F" or "C", got {signal!r}.')
    if not isinstance(only_cells, bool | np.bool_):
        raise TypeError(f"only_cells must be True or False, got {only_cells!r}.")
    if fps is not None:
        check_fps(fps, str(path))
    with open_h5(path, follow_links=follow_links) as file:
        estimates = _group(file, "estimates", str(path))
        rate = check_fps(fps, str(path)) if fps is not None else _rate_of(file, str(path))
        names, remedy = _SIGNALS[signal]
        arrays = [_traces(estimates, name, str(path), remedy) for name in names]
        ids = np.arange(len(arrays[0]))
        if only_cells:
            ids = _accepted(estimates, len(ids), str(path))
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(
            f"{path}: estimates/{' and estimates/'.join(names)} have shapes "
            f"{' and '.join(str(array.shape) for array in arrays)}; expected the same. {_AGAIN}"
        )
    check_frames(arrays[0].shape[1], ids.size, str(path))
    signals = np.zeros((arrays[0].shape[1], ids.size), dtype=np.float32)
    for array in arrays:
        with np.errstate(over="ignore"):
            signals += array[ids].T.astype(np.float32)
    if not np.isfinite(signals).all():
        raise ValueError(f"{path}: estimates/{names[0]} holds numbers beyond 1e38. {_AGAIN}")
    return as_recording(signals, rate, signal, ids)


def _group(file: H5Group, name: str, path: str) -> H5Group:
    found = _item(file, name)
    if not isinstance(found, H5Group):
        raise ValueError(
            f"{path} has no group {name!r}, only {sorted(file)}. Pass a file that CaImAn's "
            "cnmf.save has written."
        )
    return found


def _rate_of(file: H5Group, path: str) -> float:
    place: Any = file
    for name in ("params", "data", "fr"):
        if not isinstance(place, H5Group) or name not in place:
            raise ValueError(f"{path} has no frame rate (params/data/fr). Pass fps=...")
        place = place[name]
    where = f"{path}: params/data/fr"
    if isinstance(place, H5Group) or np.ndim(place):
        raise ValueError(f"{where} is no number. Pass fps=...")
    return check_fps(as_numbers(place, where, remedy="Pass fps=...").item(), where)


def _item(group: H5Group, name: str) -> Any:
    """Return an array or a group; None if there is none of this name."""
    if name not in group:
        return None
    return group[name]


def _is_none(value: Any) -> bool:
    """Whether CaImAn has written None, which it does as text."""
    return isinstance(value, bytes | str) and value in (b"NoneType", "NoneType")


def _traces(estimates: H5Group, name: str, path: str, remedy: str) -> NDArray:
    """Return an array of shape (n_neurons, n_frames)."""
    found = _item(estimates, name)
    if found is None or _is_none(found):
        others = [key for key, (names, _) in _SIGNALS.items() if all(n in estimates for n in names)]
        raise ValueError(f"{path} has no estimates/{name}. {remedy} signal, such as {others}.")
    where = f"{path}: estimates/{name}"
    if isinstance(found, H5Group):
        raise ValueError(f"{where} is a group; expected an array. {_AGAIN}")
    shape = ("n_neurons", "n_frames")
    lowest = 0.0 if name == "S" else None
    return as_numbers(
        found, where, shape, meaning="traces", at_least=lowest, finite=True, remedy=_AGAIN
    )


def _accepted(estimates: H5Group, n_neurons: int, path: str) -> NDArray[np.intp]:
    """Return the numbers of the accepted components."""
    found = _item(estimates, "idx_components")
    if found is None or _is_none(found):
        return np.arange(n_neurons)
    where = f"{path}: estimates/idx_components"
    remedy = f"Pass only_cells=False. {_AGAIN}"
    if isinstance(found, H5Group):
        raise ValueError(f"{where} is a group; expected numbers of components. {remedy}")
    if np.size(found) == 0:
        return np.empty(0, dtype=np.intp)
    ids = as_indices(found, where, n_neurons, remedy=remedy)
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"{where} names a component twice. {remedy}")
    return ids
