"""Write values of bins, with their clock, to .npz, .mat and NWB files."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sklearn_stndt import __version__
from sklearn_stndt._files import write_atomically
from sklearn_stndt.cli.messages import CommandError
from sklearn_stndt.cli.recording import Recording

FORMATS = (".nwb", ".npz", ".mat")
MODULE = "sklearn_stndt"  # processing module in NWB files


@dataclass(frozen=True)
class Result:
    """Values in the bins of a recording.

    Parameters
    ----------
    name : str
        Of the variable or the time series.
    values : ndarray of shape (n_trials, n_bins, n_columns) or (n_bins, n_columns)
        NaN in the padding of short trials.
    unit : str
        Unit of measurement.
    columns : sequence
        What the columns are: identifiers of neurons, names of channels.
    description : str
        How the values came about.
    extra : dict
        Further variables for .npz and .mat files, such as scores.
    """

    name: str
    values: NDArray
    unit: str
    columns: Sequence[Any] | NDArray
    description: str
    extra: Mapping[str, Any]


def check_output(path: str | None, formats: Sequence[str], *, overwrite: bool) -> Path | None:
    """Check a file to be written, before anything else is done.

    Parameters
    ----------
    path : str or None
        As the user gave it.
    formats : sequence of str
        Ends of names that are possible; empty: any.
    overwrite : bool
        Whether the file may exist.
    """
    if path is None:
        return None
    checked = Path(path).expanduser()
    if formats and checked.suffix not in formats:
        raise CommandError(
            f"{path} ends in {checked.suffix or 'nothing'}; a file to be written ends in "
            f"{' or '.join(formats)}."
        )
    if checked.is_dir():
        raise CommandError(f"{path} is a folder. Name a file in it.")
    if checked.exists() and not overwrite:
        raise CommandError(f"{path} exists. Pass --overwrite to replace it, or another name.")
    if not checked.parent.is_dir():
        raise CommandError(f"There is no folder {checked.parent}. Make it first.")
    return checked


def check_distinct(*paths: Path | None) -> None:
    """Raise an error if two files, one of them to be written, are the same."""
    known = [path.resolve() for path in paths if path is not None]
    for path in known:
        if known.count(path) > 1:
            raise CommandError(
                f"{path} is named twice. What is written goes to a file of its own; the input is "
                "never changed."
            )


def check_nwb(path: Path | None, source: Path) -> None:
    """Raise an error if an NWB file is to be written from another kind of file."""
    if path is None or path.suffix != ".nwb":
        return
    if source.is_dir() or source.suffix != ".nwb":
        raise CommandError(
            f"{path.name} would be a copy of the input with rates in it, but {source.name} is not "
            "an NWB file in HDF5. Write to .npz or .mat instead."
        )


def write(path: Path, recording: Recording, result: Result) -> None:
    """Write values and their clock, so that the file is complete or does not exist.

    Parameters
    ----------
    path : Path
        File ending in one of `FORMATS`. NWB: a copy of the recording's file, with a processing
        module more.
    recording : Recording
    result : Result
    """
    if path.suffix == ".nwb":
        write_atomically(path, lambda file: _write_nwb(file, recording, result))
        return
    content = _variables(recording, result)
    if path.suffix == ".mat":
        from scipy.io import savemat

        write_atomically(path, lambda file: savemat(file, content, do_compression=True))
    else:
        write_atomically(path, lambda file: np.savez_compressed(file, **content))


def _variables(recording: Recording, result: Result) -> dict[str, Any]:
    """Variables of a .npz or .mat file."""
    half = recording.bin_width / 2
    content: dict[str, Any] = {
        result.name: result.values,
        "unit": result.unit,
        "bin_width": recording.bin_width,
        "bin_centers": recording.time + half,
        "columns": _plain(result.columns),
        "description": result.description,
    }
    if recording.clock is not None:
        content["session_time"] = recording.clock + half
    if recording.trials is not None:
        content["trials"] = _plain(recording.trials)
    return content | dict(result.extra)


def _plain(values: Any) -> NDArray:
    """Return an array of numbers or text, which needs no pickle."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype.kind not in "biuf" else array


def _write_nwb(file: IO[bytes], recording: Recording, result: Result) -> None:
    """Write a copy of the recording's NWB file with a processing module more."""
    import h5py
    from pynwb import NWBHDF5IO

    with open(recording.path, "rb") as source:
        shutil.copyfileobj(source, file, 2**24)
    file.flush()
    with h5py.File(file.name, "r+") as copy, NWBHDF5IO(file=copy, mode="a") as io:
        session = io.read()
        if MODULE in session.processing:
            raise CommandError(
                f"{recording.path} has a processing module {MODULE!r} already. Use the file that "
                "it was made from, or write to .npz or .mat."
            )
        module = session.create_processing_module(
            MODULE, f"Written by sklearn_stndt {__version__}. {result.description}"
        )
        for part in _nwb_parts(recording, result):
            module.add(part)
        io.write(session)


def _nwb_parts(recording: Recording, result: Result) -> list[Any]:
    """Return the time series and the tables that explain it."""
    from pynwb import H5DataIO, TimeSeries
    from pynwb.core import DynamicTable, VectorData
    from pynwb.epoch import TimeIntervals

    assert recording.clock is not None  # of a recording from an NWB file
    half = recording.bin_width / 2
    columns = DynamicTable(
        name=f"{result.name}_columns",
        description=f"What the columns of {result.name} are, in their order.",
        columns=[
            VectorData(
                name="label",
                description="id in the units table, or name of the channel",
                data=_plain(result.columns).tolist(),
            )
        ],
    )
    inside = recording.inside
    clock = {"timestamps": H5DataIO((recording.clock + half)[inside], compression="gzip")}
    if not recording.is_trials:
        clock = {"starting_time": float(recording.clock[0] + half), "rate": 1 / recording.bin_width}
    series = TimeSeries(
        name=result.name,
        data=H5DataIO(result.values[inside].astype(np.float32), compression="gzip"),
        unit=result.unit,
        description=f"{result.description} One row per bin of {recording.bin_width:g} s; times are "
        "the centres of bins.",
        comments=f"columns: {result.name}_columns"
        + (f"; rows of each trial: {result.name}_trials" if recording.is_trials else ""),
        **clock,
    )
    if not recording.is_trials:
        return [series, columns]
    assert recording.trials is not None
    table = TimeIntervals(
        name=f"{result.name}_trials", description=f"Where in {result.name} each trial is."
    )
    table.add_column("trial", "id in the table of trials")
    table.add_column("first_row", f"first row of the trial in {result.name}, from 0")
    table.add_column("n_rows", "number of rows, one per bin")
    held_out = result.extra.get("held_out")
    if held_out is not None:
        table.add_column("held_out", "whether the network was not trained on this trial")
    n_rows = inside.sum(axis=1)
    first_rows = np.cumsum(n_rows) - n_rows
    for trial, start in enumerate(recording.clock[:, 0]):
        more = {} if held_out is None else {"held_out": bool(held_out[trial])}
        table.add_interval(
            start_time=float(start),
            stop_time=float(start + n_rows[trial] * recording.bin_width),
            trial=recording.trials[trial],
            first_row=int(first_rows[trial]),
            n_rows=int(n_rows[trial]),
            **more,
        )
    return [series, columns, table]
