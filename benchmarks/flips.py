"""Altered bytes and hostile files: an error in words, or the right result, and nothing is run.

For each reader, one bit of a small honest file (or of one file of a folder) is flipped at a time,
at places that are spread evenly over the bytes, and the result is compared with that of the honest
file. Then come files made to do harm: pickles under every name that is allowed, paths out of the
archive, links out of the folder or file, folders in place of files, JSON of another form, and
arrays that declare or unpack to far more memory than the file holds.

    python benchmarks/flips.py [--readers load ensemble ...] [--flips 1000] [--seconds 600]

Each file is read in a fork of this process, which may take 10 s of processor time. Columns: files
that were tried; those refused in words; results that were right, with the same bits or, of data,
the same shape and type; results that differ, where the format has no checksum of its data; other
errors, crashes and files beyond the limits; files that were made by what was read (both must be 0);
the longest processor time of one reading in seconds; the most memory that a process held, in MiB,
and relative to one that reads the honest file (at most 2). `--seconds` ends each reader earlier. A
checkpoint that is damaged is said to be so by a warning and trained again, which counts as right.
Needs a system with forks.
"""

import argparse
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pynwb
import torch

from sklearn_stndt import BaggingEnsemble, STNDTEstimator, load, save
from sklearn_stndt.datasets import (
    load_caiman,
    load_nlb,
    load_nwb,
    load_nwb_ophys,
    load_submission,
    load_suite2p,
)
from sklearn_stndt.training import checkpointing

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_calcium_files import write_caiman, write_plane
from test_hostile_files import ELSEWHERE, LARGE, put
from test_nwb_ophys import write as write_ophys

MOST_SECONDS = 10  # of processor time, for one reading
MOST_MEMORY = 2  # relative to the honest file
BOMB_BYTES = 2**29  # what a few kilobytes unpack to

SPIKES = np.random.default_rng(0).poisson(0.5, size=(6, 6, 3)).astype(np.float32)
SHAPE = (2, 3, 49)  # of the smallest set of the benchmark
TINY = {
    "d_model": 4,
    "n_heads": 1,
    "n_layers": 1,
    "dim_feedforward": 4,
    "d_spatial": 2,
    "max_epochs": 1,
    "early_stopping": False,
    "random_state": 0,
}


class Bomb:
    """Makes a file if a pickle of it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


# ---- readers: how to make the honest files, which of them are altered, and how to read them


class Reader:
    """One way of reading; `prepare` writes the honest files to a folder."""

    same_bits = True  # a result that is no error must have the bits of the honest one
    keys: tuple[str, ...] = ()  # arrays of an HDF5 file that are replaced by hostile ones

    def prepare(self, folder):
        raise NotImplementedError

    def files(self, folder):
        return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")

    def read(self, folder):
        """Return a number of bytes that stands for the result."""
        raise NotImplementedError


class Model(Reader):
    def prepare(self, folder):
        save(STNDTEstimator(**TINY).fit(SPIKES), folder / "model.stndt")

    def read(self, folder):
        return load(folder / "model.stndt").transform(SPIKES).tobytes()


class Training(Reader):
    """A checkpoint of a finished training."""

    def fit(self, folder):
        return STNDTEstimator(**TINY, checkpoint_dir=folder).fit(SPIKES)

    def prepare(self, folder):
        self.fit(folder)

    def read(self, folder):
        return self.fit(folder).transform(SPIKES).tobytes()


class Stop(BaseException):
    """Ends a training as a kill would."""


class Halfway(Training):
    """A checkpoint of a training that was killed in its second epoch."""

    def fit(self, folder):
        return STNDTEstimator(**(TINY | {"max_epochs": 2}), checkpoint_dir=folder).fit(SPIKES)

    def prepare(self, folder):
        write, n_written = checkpointing.TrainingCheckpoint.write, 0

        def write_twice(checkpoint, state, finished):
            nonlocal n_written
            write(checkpoint, state, finished=finished)
            n_written += 1
            if n_written == 2:
                raise Stop

        checkpointing.TrainingCheckpoint.write = write_twice
        checkpointing.INTERVAL, checkpointing.WRITING_SHARE = 0.0, np.inf
        try:
            self.fit(folder)
        except Stop:
            pass
        finally:
            checkpointing.TrainingCheckpoint.write = write


class Ensemble(Reader):
    """The directory of a finished ensemble."""

    def fit(self, folder):
        base = STNDTEstimator(**TINY)
        return BaggingEnsemble(base, 2, checkpoint_dir=folder, random_state=0).fit(SPIKES)

    def prepare(self, folder):
        self.fit(folder)

    def read(self, folder):
        return self.fit(folder).transform(SPIKES).tobytes()


class Benchmark(Reader):
    same_bits = False
    keys = ("train_spikes_heldin", "eval_spikes_heldin")

    def prepare(self, folder):
        with h5py.File(folder / "data.h5", "w") as file:
            ones = np.ones((2, 30, 49), dtype=np.uint8)  # 30 bins of 20 ms are a trial
            file["train_spikes_heldin"] = ones
            file["train_spikes_heldout"] = ones[..., :16]
            file["eval_spikes_heldin"] = ones

    def read(self, folder):
        data = load_nlb(folder / "data.h5")
        return repr(np.shape(data.X_train)).encode()  # none if its name has changed


class Submission(Reader):
    same_bits = False
    keys = ("area2_bump_20/eval_rates_heldin",)

    def prepare(self, folder):
        with h5py.File(folder / "submission.h5", "w") as file:
            rates = np.ones(SHAPE, dtype=np.float32)
            file["area2_bump_20/eval_rates_heldin"] = rates
            file["area2_bump_20/eval_rates_heldout"] = rates[..., :16]

    def read(self, folder):
        content = load_submission(folder / "submission.h5")
        shapes = {name: {key: a.shape for key, a in g.items()} for name, g in content.items()}
        return repr(shapes).encode()


class Session(Reader):
    same_bits = False
    keys = ("units/spike_times", "units/spike_times_index", "intervals/trials/start_time")

    def prepare(self, folder):
        file = pynwb.NWBFile("a session", "an id", datetime(2026, 1, 1, tzinfo=UTC))
        for _ in range(2):
            file.add_unit(spike_times=np.arange(0.05, 2, 0.1))
        file.add_trial(start_time=0.0, stop_time=2.0)
        with pynwb.NWBHDF5IO(folder / "session.nwb", "w") as to:
            to.write(file, cache_spec=False)

    def read(self, folder):
        spikes = load_nwb(folder / "session.nwb", bin_width=0.1).spikes
        return repr((spikes.shape, spikes.dtype)).encode()


class Imaging(Reader):
    """Calcium imaging; `load` reads what `write` has written."""

    same_bits = False

    def __init__(self, name, write, load, keys=()):
        self.name, self.write, self.load, self.keys = name, write, load, keys

    def prepare(self, folder):
        self.write(folder / self.name if self.name else folder)

    def read(self, folder):
        signals = self.load(folder / self.name if self.name else folder).signals
        return repr((signals.shape, signals.dtype)).encode()


READERS = {
    "load": Model(),
    "training": Training(),
    "halfway": Halfway(),
    "ensemble": Ensemble(),
    "load_nlb": Benchmark(),
    "load_submission": Submission(),
    "load_nwb": Session(),
    "load_nwb_ophys": Imaging(
        "session.nwb", write_ophys, load_nwb_ophys, ("processing/ophys/DfOverF/plane0/data",)
    ),
    "load_caiman": Imaging(
        "cnmf.hdf5", write_caiman, load_caiman, ("estimates/F_dff", "estimates/idx_components")
    ),
    "load_suite2p": Imaging("", write_plane, load_suite2p),
}


# ---- one reading


class Counts:
    """What has happened with the files of one reader."""

    def __init__(self):
        self.n = self.refused = self.right = self.other = 0
        self.seconds = self.memory = 0.0
        self.errors = []  # not in words

    def row(self, name, made, honest_memory):
        print(
            f"{name:20} {self.n:6d} {self.refused:8d} {self.right:6d} {self.other:6d} "
            f"{len(self.errors):7d} {made:6d} {self.seconds:8.2f} {self.memory:8.0f} "
            f"{self.memory / honest_memory:8.2f}",
            flush=True,
        )
        for place, error in self.errors[:10]:
            print(f"    {place}: {error}")


def in_words(error):
    """Whether this package has raised an error on purpose."""
    if not isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "sklearn_stndt" in last.filename and (last.line or "").startswith("raise")


def outcome(reader, folder):
    """Return what a reading ended with: result, refused or error, and its text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a member or a training is damaged, and trained again
        try:
            return "result", hashlib.sha1(reader.read(folder)).hexdigest()
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:150]}"
            return "refused" if in_words(error) else "error", text


def outcome_in_fork(reader, folder):
    """Return the outcome of a reading in a fork, its processor time in s and its memory in MiB."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        os.write(write_end, json.dumps(outcome(reader, folder)).encode())  # fits into the pipe
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        content = pipe.read()
    _, status, usage = os.wait4(child, 0)
    kind, text = json.loads(content) if content else ("error", f"ended with the status {status}")
    return kind, text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def try_one(reader, folder, honest, counts, place):
    """Read the files, and compare the outcome with that of the honest ones."""
    kind, text, seconds, memory = outcome_in_fork(reader, folder)
    _, expected, _, honest_memory = honest
    counts.n += 1
    counts.seconds = max(counts.seconds, seconds)
    counts.memory = max(counts.memory, memory)
    if memory > MOST_MEMORY * honest_memory:
        counts.errors.append((place, f"took {memory:.0f} MiB: {text}"))
    elif kind == "error":
        counts.errors.append((place, text))
    elif kind == "refused":
        counts.refused += 1
    elif text == expected:
        counts.right += 1
    elif reader.same_bits:
        counts.errors.append((place, "another result"))
    else:
        counts.other += 1


def restored(honest, folder):
    """Make the folder the honest one again; only files that differ are written."""
    for path in folder.iterdir():
        if not (honest / path.name).is_file() or path.is_symlink() or not path.is_file():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in honest.iterdir():
        target = folder / path.name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.write_bytes(path.read_bytes())


def flip_all(reader, honest, folder, expected, n_flips, seconds, counts):
    rng = np.random.default_rng(0)
    files = reader.files(honest)
    sizes = np.array([path.stat().st_size for path in files])
    edges = np.cumsum(sizes)
    # evenly spread, in random order, so that an early end has seen all parts
    places = rng.permutation(np.linspace(0, edges[-1] - 1, n_flips).astype(int))
    end = time.monotonic() + seconds
    for place in places:
        if time.monotonic() > end:
            break
        i = int(np.searchsorted(edges, place, side="right"))
        content = bytearray(files[i].read_bytes())
        at = int(place - (edges[i] - sizes[i]))
        content[at] ^= 1 << int(rng.integers(8))
        (folder / files[i].name).write_bytes(content)
        try_one(reader, folder, expected, counts, f"{files[i].name}, byte {at}")
        restored(honest, folder)


# ---- files made to do harm


def rezipped(path, change):
    """Rewrite a zip file with other parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def hostile(path, outside, bomb, keys):
    """Yield a name and a function that replaces a file, for each kind of harm."""

    def link():
        shutil.copy(path, outside / path.name)
        path.unlink()
        path.symlink_to(outside / path.name)

    def folder():
        path.unlink()
        path.mkdir()
        (path / "note.txt").write_text("keep")

    yield "a pickle", lambda: path.write_bytes(bomb)
    yield "a link out of the folder", link
    yield "a folder", folder
    yield "nothing", lambda: path.write_bytes(b"")
    for text in ("null", "[]", '{"format": 2}', '{"format": "x"}', "[" * 50_000):
        yield f"JSON {text[:15]}", lambda text=text: path.write_text(text)
    if path.suffix == ".npy":
        yield from hostile_array(path)
    elif h5py.is_hdf5(path):
        yield from hostile_h5(path, outside, keys)
    elif zipfile.is_zipfile(path):
        yield from hostile_zip(path, outside, bomb)


def hostile_array(path):
    """Yield arrays of numpy that are larger than their files."""

    def declared(shape, dtype):
        with open(path, "wb") as file:
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(64))

    for shape in ((4, 2**40), (2**40, 2), (2**62, 2**62)):
        for dtype in ("<f4", "|u1", "|O", "|S100000"):
            yield f"{dtype} of shape {shape}", partial(declared, shape, dtype)


def hostile_h5(path, outside, keys):
    """Yield arrays that are stored in other files, or are larger than their files."""

    def replace(key, make):
        with h5py.File(path, "a") as file:
            put(file, key, make)

    for key in keys:
        for kind, (make, _) in (ELSEWHERE | LARGE).items():
            made = make(outside) if kind in ELSEWHERE else make
            yield f"{kind}: {key}", partial(replace, key, made)
        for kind, value in (("far", [0.5, 1e9]), ("infinite", [0.5, np.inf])):
            values = partial(
                lambda file, key, value: file.create_dataset(key, data=value), value=value
            )
            yield f"{kind}: {key}", partial(replace, key, values)


def hostile_zip(path, outside, bomb):
    """Yield zip files with parts that are pickles, compressed, or named like files elsewhere."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for name in names:
        yield (
            f"a pickle as {name}",
            lambda n=name: rezipped(path, lambda parts: parts.update({n: bomb})),
        )
        if name.endswith(".json"):
            for text in ("null", "[]", '{"$": "name", "name": "os.system"}', "[" * 50_000):
                yield (
                    f"{name} {text[:15]}",
                    lambda n=name, t=text: rezipped(path, lambda p: p.update({n: t.encode()})),
                )
    for name in ("../escaped", "/tmp/escaped-flips", "a/../../escaped", "member.pickle"):
        yield f"a part {name}", lambda n=name: rezipped(path, lambda parts: parts.update({n: bomb}))

    def compressed():
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in names}
        content[names[0]] = bytes(BOMB_BYTES)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, part in content.items():
                archive.writestr(name, part)

    yield f"a compressed {names[0]}", compressed

    def saved(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        rezipped(path, lambda parts: parts.update({"state.pt": buffer.getvalue()}))

    if "state.pt" in names:
        yield "a pickle of torch", lambda: saved(Bomb(outside / "exploded"))
        yield from hostile_states(path, saved)


def hostile_states(path, saved):
    """Yield states of a training whose tensors take more memory than the file."""

    def read():
        with zipfile.ZipFile(path) as archive:
            return torch.load(io.BytesIO(archive.read("state.pt")), weights_only=True)

    def compressed():
        buffer = io.BytesIO()
        torch.save(read() | {"more": torch.zeros(BOMB_BYTES // 4)}, buffer)
        packed = io.BytesIO()
        with (
            zipfile.ZipFile(buffer) as source,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
        ):
            for name in source.namelist():
                target.writestr(name, source.read(name))
        rezipped(path, lambda parts: parts.update({"state.pt": packed.getvalue()}))

    def expanded(name):
        state = read()
        if name == "optimizer":
            state[name]["state"][0]["exp_avg"] = torch.zeros(1).double().expand(BOMB_BYTES // 4)
        else:
            key = next(iter(state[name]))
            state[name][key] = torch.zeros(1).double().expand(BOMB_BYTES // 4)
        saved(state)

    yield "a state that is compressed", compressed
    for name in ("module", "optimizer"):
        if name in read():
            yield f"expanded tensors in {name}", partial(expanded, name)


def harm_all(reader, honest, folder, outside, expected, counts):
    bomb = pickle.dumps(Bomb(outside / "exploded"))
    for path in reader.files(honest):
        target = folder / path.name
        kinds = [kind for kind, _ in hostile(target, outside, bomb, reader.keys)]
        for kind in kinds:
            for other, replace in hostile(target, outside, bomb, reader.keys):
                if other == kind:
                    replace()
                    break
            try_one(reader, folder, expected, counts, f"{path.name}: {kind}")
            restored(honest, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--flips", type=int, default=1000, help="of each reader")
    parser.add_argument("--seconds", type=float, default=np.inf, help="most, for each reader")
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads would not survive a fork
    print(
        f"{'reader':20} {'tried':>6} {'refused':>8} {'right':>6} {'other':>6} {'errors':>7} "
        f"{'made':>6} {'seconds':>8} {'memory':>8} {'relative':>8}"
    )
    failed = False
    for name in args.readers:
        reader = READERS[name]
        with tempfile.TemporaryDirectory() as top:
            honest, folder, outside = (Path(top) / part for part in ("honest", "files", "outside"))
            for part in (honest, outside):
                part.mkdir()
            reader.prepare(honest)
            shutil.copytree(honest, folder)
            reader.read(folder)  # imports what it needs
            restored(honest, folder)
            expected = outcome_in_fork(reader, folder)
            restored(honest, folder)
            flips, harms = Counts(), Counts()
            flip_all(reader, honest, folder, expected, args.flips, args.seconds, flips)
            flips.row(name, len(list(outside.iterdir())), expected[3])
            harm_all(reader, honest, folder, outside, expected, harms)
            escaped = [p for p in (Path(top) / "escaped", Path("/tmp/escaped-flips")) if p.exists()]
            made = len(escaped) + (outside / "exploded").exists()
            harms.row(f"{name}, harm", made, expected[3])
            failed |= bool(flips.errors or harms.errors or made)
    sys.exit(failed)


if __name__ == "__main__":
    main()
