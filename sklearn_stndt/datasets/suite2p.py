"""Load recordings that suite2p has processed."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_stndt.datasets._checks import as_flags, as_numbers, check_number
from sklearn_stndt.datasets._imaging import as_recording, check_fps, check_frames, delta_f
from sklearn_stndt.datasets._npy import open_array, read_setting

__all__ = ["load_suite2p"]

_SIGNALS = ("dff", "spks", "F")
_SETTINGS = ("ops.npy", "settings.npy")  # of suite2p before version 1, and since
_AGAIN = "Run suite2p again, or copy the folder again."
_PASS_FPS = "Pass fps=..., the frames per second of a plane; the file is then not read."


def load_suite2p(
    folder: str | os.PathLike,
    *,
    signal: str = "dff",
    fps: float | None = None,
    only_cells: bool = True,
    neuropil: float = 0.7,
    baseline_window: float = 60.0,
) -> Bunch:
    r"""Load calcium imaging from a folder of suite2p.

    Nothing in the files is executed. suite2p's settings are a pickled dictionary; `fps` is read
    out of it by a reader that imports no class and calls no function that the file names.

    Parameters
    ----------
    folder : path
        Folder with ``F.npy``, such as ``suite2p/plane0``. Or the folder above: the neurons of all
        its planes are joined, without `combined`, whose shorter planes are padded with zeros.

    signal : {"dff", "spks", "F"}, default="dff"
        What to return:

        - "dff": :math:`\Delta F / F_0`, with neuropil subtracted (see Notes);
        - "spks": suite2p's deconvolved activity, from which rates are inferred best;
        - "F": fluorescence with neuropil subtracted.

        Each is for ``STNDTEstimator(likelihood="gaussian")``; of "spks",
        ``likelihood="zero_inflated_gamma"`` describes the zeros too.

    fps : float, default=None
        Frames per second of a plane. None: suite2p's setting "fs".

    only_cells : bool, default=True
        Whether to leave out regions that were not classified as cells (``iscell.npy``).

    neuropil : float, default=0.7
        Neuropil coefficient, by which ``Fneu.npy`` is multiplied before it is subtracted. 0: no
        subtraction. Has no influence on "spks".

    baseline_window : float, default=60.0
        Length of the filters of the baseline, in seconds.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with these attributes:

        signals : ndarray of shape (n_frames, n_neurons), float32
            The signal of each neuron in each frame.
        time : ndarray of shape (n_frames,)
            Start of each frame, in seconds from the first. With the times of a frame clock, use
            those.
        neuron_ids : ndarray of shape (n_neurons,), int
            Number of each neuron in suite2p, within its plane.
        planes : ndarray of shape (n_neurons,), int
            Plane of each neuron, -1 if not known.
        cell_probability : ndarray of shape (n_neurons,)
            Probability of being a cell by suite2p's classifier, NaN if not known.
        signal : str
            As given.
        fps : float
            Frames per second.
        bin_width : float
            ``1 / fps``, in seconds.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files does not exist.
    TypeError
        If an argument is of another type.
    ValueError
        If an argument is out of range; if files are damaged, do not fit each other, or name what
        does not belong in them; if `fps` is not known; or if no neuron is left.

    Warns
    -----
    UserWarning
        If planes differ in their numbers of frames (the last frames are left out), or if baselines
        are too low to divide by.

    See Also
    --------
    align_signals : Trials around events.
    load_caiman, load_nwb_ophys : Other formats.
    make_calcium : Synthetic recordings with known rates.

    Notes
    -----
    With :math:`F_c = F - 0.7\, F_\text{neu}`, dF/F is :math:`(F_c - F_0) / F_0`. The baseline
    :math:`F_0` is suite2p's "maximin": :math:`F_c` smoothed by a Gaussian with a standard deviation
    of 10 frames, then a running minimum and a running maximum over `baseline_window`. Where
    :math:`F_0` of a neuron falls below a tenth of the baseline of :math:`F`, its fluorescence is
    divided by the latter, with a warning.

    Planes are recorded one after the other within a volume; their frames get the same time.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn_stndt.datasets import load_suite2p
    >>> F = 100 + np.random.default_rng(0).random((3, 200), dtype=np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, array in {
    ...         "F": F,
    ...         "Fneu": 0.1 * F,
    ...         "iscell": [[1, 0.9]] * 2 + [[0, 0.1]],
    ...     }.items():
    ...         np.save(Path(folder) / f"{name}.npy", array)
    ...     data = load_suite2p(folder, fps=30)
    >>> data.signals.shape, data.neuron_ids
    ((200, 2), array([0, 1]))
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder must be a path, got {folder!r} of type {type(folder).__name__}.")
    if not isinstance(signal, str) or signal not in _SIGNALS:
        raise ValueError(f'signal must be "dff", "spks" or "F", got {signal!r}.')
    if not isinstance(only_cells, bool | np.bool_):
        raise TypeError(f"only_cells must be True or False, got {only_cells!r}.")
    check_number(neuropil, "neuropil", at_least=0, at_most=10)
    check_number(baseline_window, "baseline_window", above=0)
    planes = _planes_of(Path(folder).expanduser())
    if fps is not None:
        rate = check_fps(fps, str(folder))
    else:
        rates = {path: _rate_of(path) for path in planes}
        rate = next(iter(rates.values()))
        if len(set(rates.values())) > 1:
            listed = ", ".join(f"{path.name} {one:g} Hz" for path, one in rates.items())
            raise ValueError(
                f"{folder}: planes differ in their frame rates ({listed}). Pass the folder of one "
                "plane, or fps=... with the rate of all."
            )
    parts = [
        _read_plane(path, signal, rate, only_cells, float(neuropil), float(baseline_window))
        for path in planes
    ]
    lengths = [part.signals.shape[1] for part in parts]
    n_frames = min(lengths)
    if max(lengths) > n_frames:
        warnings.warn(
            f"{folder}: planes have {n_frames:,} to {max(lengths):,} frames; the last ones of the "
            "longer planes are left out.",
            UserWarning,
            stacklevel=2,
        )
    signals = np.concatenate([part.signals[:, :n_frames] for part in parts])  # (neurons, frames)
    check_frames(n_frames, len(signals), str(folder))
    return as_recording(
        np.ascontiguousarray(signals.T),
        rate,
        signal,
        np.concatenate([part.ids for part in parts]),
        planes=np.repeat([_number_of(path) for path in planes], [len(part.ids) for part in parts]),
        cell_probability=np.concatenate([part.probability for part in parts]),
    )


def _planes_of(folder: Path) -> list[Path]:
    """Return the folders with arrays."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Check the path.")
    for place in (folder, folder / "suite2p"):
        if (place / "F.npy").is_file():
            return [place]
        planes = [path for path in place.glob("plane*") if (path / "F.npy").is_file()]
        if planes:
            return sorted(planes, key=lambda path: (_number_of(path), path.name))
        if (place / "combined" / "F.npy").is_file():
            return [place / "combined"]
    raise FileNotFoundError(
        f"{folder} holds no F.npy, and no folder plane0 with one. Pass the folder in which suite2p "
        "saved its results."
    )


def _number_of(folder: Path) -> int:
    number = re.fullmatch(r"plane(\d{1,9})", folder.name)
    return int(number[1]) if number else -1


def _rate_of(folder: Path) -> float:
    """Frames per second, from suite2p's settings."""
    for path in [place / name for place in (folder, folder.parent) for name in _SETTINGS]:
        if path.is_file():
            rate = read_setting(path, "fs", _PASS_FPS)
            if rate is not None:
                return check_fps(rate, f'{path}: "fs"')
    raise ValueError(
        f"{folder} has no ops.npy or settings.npy with the frames per second (fs). Pass fps=..."
    )


def _read_plane(
    folder: Path, signal: str, fps: float, only_cells: bool, neuropil: float, window: float
) -> Any:
    """Return signals (n_neurons, n_frames), ids and probabilities of one plane."""
    name = "spks.npy" if signal == "spks" else "F.npy"
    stored = open_array(folder / name, (2,), "an array of shape (n_neurons, n_frames)")
    n_neurons = len(stored)
    kept, probability = _cells(folder, n_neurons, only_cells)
    ids = np.flatnonzero(kept)
    if not ids.size:
        return Bunch(signals=np.empty((0, stored.shape[1])), ids=ids, probability=probability[ids])
    check_frames(stored.shape[1], ids.size, str(folder))
    values = _rows(stored, ids, folder / name)
    if signal == "spks":
        if not values.any():
            raise ValueError(
                f"{folder / name} holds only zeros: suite2p ran without deconvolution. Pass "
                'signal="dff", or run its deconvolution.'
            )
        if (values < 0).any():
            raise ValueError(
                f"{folder / name} is below 0 in {np.count_nonzero(values < 0):,} entries; "
                f"deconvolved activity is not. {_AGAIN}"
            )
        return Bunch(signals=values, ids=ids, probability=probability[ids])
    corrected = values
    if neuropil:
        around = open_array(folder / "Fneu.npy", (2,), "an array of shape (n_neurons, n_frames)")
        if around.shape != stored.shape:
            raise ValueError(
                f"{folder / 'Fneu.npy'} has shape {around.shape} and F.npy {stored.shape}; "
                f"expected the same. {_AGAIN}"
            )
        corrected = values - np.float32(neuropil) * _rows(around, ids, folder / "Fneu.npy")
    if signal == "dff":
        corrected = delta_f(corrected, values, fps, window, ids, str(folder))
    return Bunch(signals=corrected, ids=ids, probability=probability[ids])


def _rows(stored: NDArray, ids: NDArray, path: Path) -> NDArray[np.float32]:
    rows = as_numbers(stored[ids], str(path), meaning="numbers", finite=True, remedy=_AGAIN)
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path} holds numbers beyond 1e38. {_AGAIN}")
    return rows


def _cells(folder: Path, n_neurons: int, only_cells: bool) -> tuple[NDArray, NDArray]:
    """Return which regions to load, and their probability of being a cell."""
    path = folder / "iscell.npy"
    if not path.is_file():
        if only_cells:
            raise FileNotFoundError(
                f"There is no file {path}, which says which regions are cells. Pass "
                "only_cells=False for all."
            )
        return np.ones(n_neurons, dtype=bool), np.full(n_neurons, np.nan)
    table = np.array(open_array(path, (1, 2), "a row for each region"))
    if len(table) != n_neurons or (table.ndim == 2 and not table.shape[1]):
        raise ValueError(
            f"{path} has shape {table.shape}, but there are {n_neurons} regions; expected a row "
            f"for each. {_AGAIN}"
        )
    table = table.reshape(n_neurons, -1)
    cells = as_flags(table[:, 0], f"{path}, column 0", remedy=_AGAIN)
    probability = np.full(n_neurons, np.nan)
    if table.shape[1] > 1:
        probability = table[:, 1].astype(np.float64)
    return (cells if only_cells else np.ones(n_neurons, dtype=bool)), probability
