"""The command ``python -m sklearn_stndt``, on small files of each kind."""

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.linalg import LinAlgWarning
from scipy.sparse import csc_array
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from skorch.callbacks import Callback
from subprocesses import LIMIT

import sklearn_stndt
from sklearn_stndt import BinwiseRegressor, STNDTEstimator
from sklearn_stndt.cli import held_out, main, messages, pages
from sklearn_stndt.cli.decode import _ALPHAS
from sklearn_stndt.cli.messages import CommandError
from sklearn_stndt.cli.options import make_parser
from sklearn_stndt.cli.recording import read
from sklearn_stndt.datasets import align_to_events, bin_spikes, bin_trials, load_nwb

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "command.md"
FAST = ["--max-epochs", "1", "--device", "cpu"]
WIDTH = 0.05  # s


@pytest.fixture(scope="module")
def session(write_nwb):
    """An NWB file of 10 trials of 1.2 s, 6 neurons."""
    return write_nwb(n_trials=10, n_neurons=6, n_heldout=2)


@pytest.fixture
def counts(spikes, tmp_path):
    """The counts of `spikes` in files of each kind."""
    np.save(tmp_path / "trials.npy", spikes)
    np.savez(tmp_path / "trials.npz", counts=spikes, bin_width=WIDTH, other=np.arange(3))
    savemat(tmp_path / "trials.mat", {"binned": spikes.transpose(2, 1, 0), "bin_width": WIDTH})
    names = [f"unit{i}" for i in range(spikes.shape[-1])]
    for name, separator in (("trials.csv", ","), ("trials.tsv", "\t"), ("semicolon.csv", ";")):
        lines = [separator.join(["trial", "bin", *names])]
        for trial, of_trial in enumerate(spikes):
            for step, of_bin in enumerate(of_trial):
                lines.append(separator.join(f"{v:g}" for v in (trial, step, *of_bin)))
        (tmp_path / name).write_text("\n".join(lines))
    return tmp_path


def parsed(*arguments):
    """Options of ``rates``."""
    return make_parser().parse_args(["rates", *map(str, arguments), "--out", "unused.npz"])


def run(*arguments):
    """Run the command in this process."""
    return main([str(argument) for argument in arguments])


def network(**params):
    """The estimator that FAST describes."""
    return STNDTEstimator(max_epochs=1, random_state=0, device="cpu", **params)


# -- rates ----------


def test_rates_in_an_nwb_file_equal_those_of_the_same_steps_in_python(session, tmp_path, capsys):
    pynwb = pytest.importorskip("pynwb")
    before = session.read_bytes()
    out = tmp_path / "rates.nwb"
    options = ("--bin-width", WIDTH, "--align", "move_onset_time", "--window", -0.3, 0.5)
    assert run("rates", session, *options, "--out", out, *FAST) == 0

    data = load_nwb(session, bin_width=WIDTH, align="move_onset_time", window=(-0.3, 0.5))
    aside = held_out.set_aside(data.spikes, 0.2, 0)
    train = np.setdiff1d(np.arange(10), aside)
    fitted = network().fit(data.spikes[train])
    rates = fitted.transform(data.spikes) / WIDTH
    with pynwb.NWBHDF5IO(out, "r") as io:
        module = io.read().processing["sklearn_stndt"]
        series, trials = module["rates"], module["rates_trials"].to_dataframe()
        np.testing.assert_allclose(series.data[:], rates.reshape(-1, 6), rtol=1e-6)
        np.testing.assert_allclose(series.timestamps[:], data.clock.ravel() + WIDTH / 2)
        assert series.unit == "Hz"
        assert list(module["rates_columns"]["label"][:]) == list(data.unit_ids)
    assert trials["held_out"].to_numpy().nonzero()[0].tolist() == aside.tolist()
    assert trials["trial"].tolist() == data.trials["id"].tolist()
    assert trials["first_row"].tolist() == (16 * np.arange(10)).tolist()

    again = load_nwb(out, bin_width=WIDTH, trials="rates_trials", behavior="rates")
    # the mean over a bin of the line through the centres of bins
    expected = (rates[:, :-2] + 6 * rates[:, 1:-1] + rates[:, 2:]) / 8
    np.testing.assert_allclose(again.behavior["rates"][:, 1:-1], expected, rtol=1e-5)
    assert session.read_bytes() == before
    printed = capsys.readouterr().out
    assert f"{fitted.score(data.spikes[aside]):.4f}" in printed
    assert "Gaussian" in printed


def test_rates_of_short_trials_are_nan_after_their_end(tmp_path):
    out = tmp_path / "rates.npz"
    table = tmp_path / "ragged.csv"
    rows = [(0, 1, 0), (0, 0, 2), (0, 1, 1), (1, 2, 0), (1, 0, 1), (2, 1, 1), (2, 0, 1), (2, 1, 0)]
    table.write_text("trial,a,b\n" + "\n".join(",".join(map(str, row)) for row in rows))
    assert run("rates", table, "--bin-width", WIDTH, "--out", out, *FAST) == 0
    with np.load(out) as file:
        assert np.isnan(file["rates"]).any(axis=-1).tolist() == [
            [False] * 3,
            [False, False, True],
            [False] * 3,
        ]
        assert file["columns"].tolist() == ["a", "b"]


def test_a_network_is_saved_and_loaded(counts, capsys):
    model, first, second = (counts / name for name in ("model.stndt", "first.npz", "second.mat"))
    path = counts / "trials.npz"
    assert run("rates", path, "--out", first, "--model", model, *FAST) == 0
    capsys.readouterr()
    assert run("rates", path, "--out", second, "--load", model) == 0
    assert "not known whether" not in capsys.readouterr().err  # it has not seen what is set aside
    with np.load(first) as file:
        written = loadmat(second)
        assert np.array_equal(written["rates"], file["rates"])
        assert written["bits_per_spike"].item() == file["bits_per_spike"].item()
        assert file["unit"] == "Hz"
        np.testing.assert_allclose(file["bin_centers"], WIDTH * (np.arange(20) + 0.5))
    assert sklearn_stndt.load(model).verbose == 0
    assert "bin width: 50 ms" in sklearn_stndt.persistence.model_card(model)

    assert run("rates", path, "--out", second, "--load", model, "--overwrite", "--quiet") == 0
    assert run("rates", path, "--out", counts / "3.mat", "--load", model, "--random-state", 1) == 0
    assert "not known whether" in capsys.readouterr().err
    narrow = ("--bin-width", 0.02)
    assert run("rates", path, "--out", counts / "4.mat", "--load", model, *narrow) == 2
    assert "--bin-width 0.05" in capsys.readouterr().err


def test_a_recording_is_scored_on_blocks_between_those_trained_on(rows, tmp_path):
    np.save(tmp_path / "rows.npy", np.tile(rows, (3, 1)))
    out = tmp_path / "rates.npz"
    options = ("--bin-width", WIDTH, "--window-bins", 20, "--causal", "--attention", "temporal")
    assert run("rates", tmp_path / "rows.npy", *options, "--out", out, *FAST) == 0
    with np.load(out) as file:
        aside = file["held_out"]
        assert aside.mean() == pytest.approx(0.2, abs=0.01)
        assert np.count_nonzero(np.diff(aside.astype(int)) == 1) == 2
        assert np.isfinite(file["rates"]).all()
        np.testing.assert_allclose(file["session_time"], file["bin_centers"])
        counts = np.tile(rows, (3, 1))
        train = np.flatnonzero(~aside)
        params = {"window": 20, "causal": True, "attention": "temporal"}
        fitted = network(**params).fit(counts[train], groups=held_out.runs(counts, train))
        np.testing.assert_array_equal(file["rates"], fitted.transform(counts) / WIDTH)


def test_without_a_fraction_set_aside_there_is_no_score(counts, capsys):
    out = counts / "rates.npz"
    path = counts / "trials.npz"
    assert run("rates", path, "--out", out, "--test-fraction", 0, *FAST) == 0
    assert "bits per spike of" not in capsys.readouterr().out
    with np.load(out) as file:
        assert "bits_per_spike" not in file
        assert not file["held_out"].any()


# -- reading ----------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trials.npy", ("--bin-width", WIDTH)),
        ("trials.npz", ()),
        ("trials.mat", ("--counts", "binned", "--axes", "neurons,bins,trials")),
        ("trials.csv", ("--bin-width", WIDTH)),
        ("trials.tsv", ("--bin-width", WIDTH)),
        ("semicolon.csv", ("--bin-width", WIDTH)),
    ],
)
def test_counts_are_the_same_from_each_kind_of_file(counts, spikes, name, options):
    recording = read(parsed(counts / name, *options))
    assert np.array_equal(recording.counts, spikes)
    assert recording.bin_width == WIDTH


def test_a_sparse_matrix_of_matlab_holds_counts(rows, tmp_path):
    savemat(tmp_path / "sparse.mat", {"counts": csc_array(rows)})
    recording = read(parsed(tmp_path / "sparse.mat", "--bin-width", WIDTH))
    assert np.array_equal(recording.counts, rows)


@pytest.fixture
def trains():
    """Spike times of three neurons in seconds, and events."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 10, size=n)) for n in (40, 1, 60)]
    return times, np.array([1.0, 3.0, 5.0, 7.0])


@pytest.mark.parametrize("kind", ["mat", "mat73", "npz"])
@pytest.mark.parametrize("cut", ["events", "trials", "whole"])
def test_spike_times_are_binned(trains, tmp_path, kind, cut):
    times, events = trains
    path = tmp_path / f"times.{kind[:3]}"
    intervals = np.column_stack([events, events + np.array([0.5, 1.0, 1.0, 0.7])])
    other = {"cue": 1000 * events, "intervals": 1000 * intervals}
    if kind == "npz":
        labels = np.repeat([3, 5, 9], [40, 1, 60])
        np.savez(path, spike_times=1000 * np.concatenate(times), cluster=labels, **other)
    elif kind == "mat":
        cells = np.empty((1, 3), dtype=object)
        for i, train in enumerate(times):
            cells[0, i] = 1000 * train
        savemat(path, {"trains": cells} | other)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            references = file.create_dataset("trains", (3, 1), dtype=h5py.ref_dtype)
            for i, train in enumerate(times):
                cell = file.create_dataset(f"#refs#/{i}", data=1000 * train[:, None])
                references[i, 0] = cell.ref
            for name, values in other.items():
                file[name] = values.T
    options = ["--bin-width", WIDTH, "--time-unit", "ms"]
    if kind != "npz":
        options += ["--spike-times", "trains"]
    if cut == "events":
        recording = read(parsed(path, *options, "--align", "cue", "--window", -0.5, 0.5))
        expected = align_to_events(times, events, (-0.5, 0.5), WIDTH)
        np.testing.assert_allclose(recording.clock[:, 10], events)
    elif cut == "trials":
        recording = read(parsed(path, *options, "--trials", "intervals"))
        expected = bin_trials(times, intervals[:, 0], intervals[:, 1], WIDTH)
        assert not recording.inside.all()
    else:
        recording = read(parsed(path, *options))
        expected = bin_spikes(times, WIDTH)
    np.testing.assert_array_equal(recording.counts, expected)
    assert recording.neurons.tolist() == ([3, 5, 9] if kind == "npz" else [0, 1, 2])


def test_a_table_of_spikes_is_binned(trains, tmp_path):
    times, _ = trains
    path = tmp_path / "spikes.csv"
    rows = [(t, unit) for unit, train in zip("abc", times, strict=True) for t in train]
    path.write_text("time,unit\n" + "\n".join(f"{t},{unit}" for t, unit in rows))
    recording = read(parsed(path, "--bin-width", WIDTH))
    np.testing.assert_array_equal(recording.counts, bin_spikes(times, WIDTH))
    assert recording.neurons.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("shape", ["as the counts", "in the order of the package", "one channel"])
def test_behaviour_has_the_axes_of_the_counts(reaches, spikes, tmp_path, shape):
    velocity = reaches.velocity
    stored = {
        "as the counts": velocity.transpose(2, 1, 0),
        "in the order of the package": velocity,
        "one channel": velocity[..., 0].T,
    }[shape]
    path = tmp_path / "trials.mat"
    savemat(path, {"counts": spikes.transpose(2, 1, 0), "velocity": stored})
    options = parsed(path, "--axes", "neurons,bins,trials", "--bin-width", WIDTH)
    found = read(options, ["velocity"]).targets["velocity"]
    assert np.array_equal(found, velocity[..., :1] if shape == "one channel" else velocity)


# -- decode and benchmark ----------


def test_decoding_equals_the_same_steps_in_python(reaches, spikes, tmp_path, capsys):
    path, out = tmp_path / "trials.npz", tmp_path / "decoded.npz"
    np.savez(path, counts=spikes, velocity=reaches.velocity, bin_width=0.02)
    options = ("--target", "velocity", "--folds", 2, "--lag", 0, 0.04, "--out", out)
    assert run("decode", path, *options, *FAST) == 0

    expected, scores = np.empty(reaches.velocity.shape), []
    for train, test in KFold(2, shuffle=True, random_state=0).split(spikes):
        fitted = network().fit(spikes[train])
        grid = {"estimator__alpha": _ALPHAS, "lag": [0, 2]}
        decoder = GridSearchCV(BinwiseRegressor(Ridge()), grid, cv=KFold(3))
        decoder.fit(fitted.transform(spikes[train]), reaches.velocity[train])
        expected[test] = decoder.predict(fitted.transform(spikes[test]))
        scores.append(decoder.score(fitted.transform(spikes[test]), reaches.velocity[test]))
    with np.load(out) as file:
        np.testing.assert_allclose(file["decoded"], expected)
        assert np.array_equal(file["truth"], reaches.velocity)
        assert file["r2"] == pytest.approx(np.mean(scores))
        assert file["r2_smoothing"] > 0.1
    assert f"{np.mean(scores):.4f}" in capsys.readouterr().out


def test_a_time_series_is_decoded_into_a_copy_of_the_file(session, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    out = tmp_path / "decoded.nwb"
    options = ("--target", "hand_vel", "--folds", 2, "--lag", 0, "--bin-width", 0.1, "--no-trials")
    assert run("decode", session, *options, "--out", out, *FAST) == 0
    with pynwb.NWBHDF5IO(out, "r") as io:
        module = io.read().processing["sklearn_stndt"]
        assert module["decoded"].unit == "cm/s"
        assert module["decoded"].rate == pytest.approx(10)
        assert module["decoded"].starting_time == pytest.approx(0.05)
        assert list(module["decoded_columns"]["label"][:]) == ["hand_vel[0]", "hand_vel[1]"]


def test_a_data_set_of_the_benchmark_becomes_a_submission(session, tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    out = tmp_path / "submission.h5"
    assert run("benchmark", "mc_maze_small_20", session, "--out", out, *FAST) == 0
    printed = capsys.readouterr().out
    assert "co-bps" in printed
    assert "fp-bps" in printed
    with h5py.File(out) as file:
        assert "eval_rates_heldout" in file["mc_maze_small_20"]


def test_without_files_the_benchmark_says_how_to_get_them(tmp_path, capsys):
    assert run("benchmark", "mc_maze_small", "--data-home", tmp_path) == 2
    assert "--download" in capsys.readouterr().err


# -- errors, interruptions ----------


def one_line_error(capsys, *arguments):
    """Run a command that fails, and return its error."""
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("fit:")]
    assert lines[-1].startswith("python -m sklearn_stndt")
    assert sum("error:" in line for line in lines) == 1
    assert "Traceback" not in err
    assert out == ""
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["trials.npz", "--out", "rates.nwb"], "not an NWB file"),
        (["trials.npz", "--out", "rates.txt"], ".nwb or .npz or .mat"),
        (["trials.npz", "--out", "trials.mat"], "--overwrite"),
        (["trials.npz", "--out", "trials.npz", "--overwrite"], "file of its own"),
        (["trials.npz", "--out", "no/rates.npz"], "no folder"),
        (["trials.npz"], "--out"),
        (["nothing.npz", "--out", "x.npz"], "no file"),
        (["broken.npz", "--out", "x.npz"], "cannot be read"),
        (["broken.mat", "--out", "x.npz"], "cannot be read"),
        (["broken.nwb", "--out", "x.npz"], "broken.nwb"),
        (["objects.npz", "--out", "x.npz"], "can run code"),
        (["trials.npy", "--out", "x.npz"], "--bin-width"),
        (["trials.npz", "--out", "x.npz", "--counts", "spikes"], "counts (24, 20, 12)"),
        (["trials.npz", "--out", "x.npz", "--axes", "bins,neurons"], "3 axes"),
        (["trials.npz", "--out", "x.npz", "--axes", "a,b"], "neurons,bins,trials"),
        (["trials.npz", "--out", "x.npz", "--align", "cue"], "--window BEGIN END"),
        (["trials.npz", "--out", "x.npz", "--units", "snr > 4"], "not for .npz"),
        (["trials.npz", "--out", "x.npz", "--max-epochs", "soon"], "auto, long or"),
        (["trials.npz", "--out", "x.npz", "--test-fraction", "1"], "below 1"),
        (["trials.npz", "--out", "x.npz", "--device", "abacus"], "abacus"),
        (["trials.npz", "--out", "x.npz", "--load", "trials.npz"], "trials.npz"),
        (["trials.npz", "--out", "x.npz", "--load", "a", "--causal"], "--causal"),
        (["trials.npz", "--out", "x.npz", "--lod", "a"], "--lod"),
        (["trials.csv", "--out", "x.npz"], "--bin-width"),
        (["words.csv", "--out", "x.npz", "--bin-width", "1"], "'many'"),
        (["velocity.csv", "--out", "x.npz", "--bin-width", "1"], "--ignore v"),
    ],
)
def test_mistakes_are_one_line(counts, monkeypatch, capsys, arguments, wanted):
    monkeypatch.chdir(counts)
    for name in ("broken.npz", "broken.mat", "broken.nwb"):
        Path(name).write_bytes(b"no such file")
    np.savez("objects.npz", counts=np.array([[1], [2, 3]], dtype=object))
    Path("words.csv").write_text("a,b\n1,many\n")
    Path("velocity.csv").write_text("a,v\n1,0.5\n")
    before = sorted(counts.iterdir())
    assert wanted in one_line_error(capsys, "rates", *arguments)
    assert sorted(counts.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--align", "cue", "--window", "-0.2", "0.8"], "move_onset_time"),
        (["--window", "-0.2", "0.85", "--bin-width", "0.1"], "whole number of bins"),
        (["--trials", "epochs"], "epochs"),
        (["--units", "snr > 4"], "--units"),
        (["--no-trials", "--window", "0", "1"], "--no-trials"),
    ],
)
def test_mistakes_in_an_nwb_file_name_options(session, tmp_path, capsys, arguments, wanted):
    error = one_line_error(capsys, "rates", session, "--out", tmp_path / "x.npz", *arguments)
    assert wanted in error
    assert not re.search(r"(trials|units|on_error|bin_width)=", error)


def test_rates_are_not_written_twice_into_a_file(session, tmp_path, capsys):
    pytest.importorskip("pynwb")
    first, second = tmp_path / "first.nwb", tmp_path / "second.nwb"
    options = ("--bin-width", 0.1, "--test-fraction", 0, *FAST)
    assert run("rates", session, "--out", first, *options) == 0
    capsys.readouterr()
    assert "already" in one_line_error(capsys, "rates", first, "--out", second, *options)
    assert sorted(tmp_path.iterdir()) == [first]


def test_a_missing_extra_is_named(session, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    error = one_line_error(capsys, "rates", session, "--out", tmp_path / "x.npz")
    assert "sklearn-stndt[io]" in error


def test_the_traceback_is_shown_on_request(tmp_path, capsys):
    out = tmp_path / "x.npz"
    assert run("rates", tmp_path / "nothing.npz", "--out", out, "--traceback") == 2
    assert "Traceback" in capsys.readouterr().err


class Interrupts(Callback):
    """Raises KeyboardInterrupt after the first batch, as Ctrl-C does."""

    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupted_training_writes_nothing(counts, monkeypatch, capsys):
    fit = STNDTEstimator.fit
    monkeypatch.setattr(
        STNDTEstimator, "fit", lambda self, X: fit(self.set_params(callbacks=[Interrupts()]), X)
    )
    before = sorted(counts.iterdir())
    assert run("rates", counts / "trials.npz", "--out", counts / "rates.npz", *FAST) == 130
    assert "interrupted" in capsys.readouterr().err
    assert sorted(counts.iterdir()) == before


def test_an_interrupted_writing_leaves_the_file_that_was_there(counts, monkeypatch):
    out = counts / "rates.npz"
    out.write_bytes(b"earlier rates")

    def interrupted(file, **content):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    before = sorted(counts.iterdir())
    assert run("rates", counts / "trials.npz", "--out", out, "--overwrite", *FAST) == 130
    assert sorted(counts.iterdir()) == before
    assert out.read_bytes() == b"earlier rates"


# -- the command line ----------


def test_the_command_runs_as_a_program(counts):
    out = counts / "rates.npz"
    command = [sys.executable, "-m", "sklearn_stndt", "rates", str(counts / "trials.npz")]
    done = subprocess.run(
        [*command, "--out", str(out), *FAST, "--quiet"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert done.stdout.startswith("bits per spike of hidden entries in 5 trials set aside")
    assert out.exists()


@pytest.mark.parametrize("command", ["rates", "decode", "benchmark"])
def test_help_has_examples_that_are_understood(command, capsys):
    assert run(command, "--help") == 0
    page = capsys.readouterr().out
    examples = commands_in(page.partition("\nexamples\n")[2])
    assert examples
    for arguments in examples:
        assert make_parser().parse_args(arguments).command == command


def commands_in(text):
    """Arguments of each command in a text, which may go on after a backslash."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^\s*(?:\$ )?python -m sklearn_stndt (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_commands_of_the_guide_are_understood():
    commands = commands_in(GUIDE.read_text())
    assert len(commands) >= 5
    for arguments in commands:
        make_parser().parse_args(arguments)


def test_pages_fit_into_a_terminal():
    for name, page in vars(pages).items():
        if name.isupper():
            assert max(map(len, page.splitlines())) < 80, name


def test_without_a_command_help_is_shown(capsys):
    assert run() == 0
    assert "rates --help" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sklearn_stndt {sklearn_stndt.__version__}\n"


# -- smoothing ----------


@pytest.mark.parametrize("causal", [False, True])
def test_smoothing_sees_visible_counts_alone(spikes, causal):
    smoothing = held_out.Smoothing(np.ones(12), 2.0, 0.5, causal)
    rates = smoothing.rates(spikes)
    later = spikes.copy()
    later[:, 10:] += 3
    assert np.array_equal(smoothing.rates(later)[:, :10], rates[:, :10]) == causal
    assert not np.allclose(smoothing.rates(later)[:, 11:], rates[:, 11:])

    rows = spikes.reshape(-1, 12)
    by_group = smoothing.rates(rows, np.repeat(np.arange(24), 20))
    np.testing.assert_allclose(by_group, rates.reshape(-1, 12))

    hidden = spikes.copy()
    hidden[:, :, 0] = np.nan
    assert np.allclose(smoothing.rates(hidden)[..., 0], 1.0)  # the mean
    assert np.array_equal(smoothing.rates(hidden)[..., 1:], rates[..., 1:])


def test_smoothing_of_a_slow_rate_is_better_than_the_mean_and_its_width_fits():
    rng = np.random.default_rng(0)
    log_rates = np.sin(np.arange(2000) / 40)[:, None] + np.zeros(5)
    counts = rng.poisson(np.exp(log_rates)).astype(float)
    chosen = held_out.choose_smoothing(counts, 0.02, None, causal=False)
    assert 3 <= chosen.width <= 20  # bins; the rate has a period of 251
    assert held_out.bits(chosen.rates, counts, None) > 0.1


# -- mistakes of a first try ----------


def refusal(*arguments):
    """The error of reading a recording."""
    with pytest.raises((CommandError, ValueError)) as error:
        read(parsed(*arguments))
    return str(error.value)


@pytest.fixture
def in_ms(trains, tmp_path):
    """A MATLAB file with spike times and events in milliseconds."""
    times, events = trains[0], np.arange(1.0, 4.0)
    cells = np.empty((1, 3), dtype=object)
    for i, train in enumerate(times):
        cells[0, i] = 1000 * train
    savemat(tmp_path / "ms.mat", {"spikeTimes": cells, "cue": 1000 * events})
    return tmp_path / "ms.mat"


def test_times_that_do_not_look_like_seconds_are_an_error_until_confirmed(in_ms):
    aligned = [in_ms, "--align", "cue", "--window", -0.5, 0.5]
    message = refusal(*aligned)
    assert "not in seconds" in message
    assert "--time-unit ms" in message
    assert read(parsed(*aligned, "--time-unit", "ms")).counts.shape == (3, 50, 3)
    with pytest.warns(UserWarning, match="not in seconds"):
        read(parsed(in_ms, "--spike-times", "spikeTimes", "--bin-width", 1, "--time-unit", "s"))


@pytest.mark.parametrize("width", ["20", "0", "-1"])
def test_a_width_of_bins_in_milliseconds_is_refused(width, session, capsys):
    assert run("rates", session, "--bin-width", width, "--out", "unused.npz") == 2
    assert "a number of seconds up to 1; 20 ms are 0.02" in capsys.readouterr().err


def test_a_window_in_milliseconds_is_refused(in_ms):
    options = ["--time-unit", "ms", "--align", "cue", "--window", -200, 400]
    assert "lasts 600 s. It is in seconds, also with --time-unit ms" in refusal(in_ms, *options)


def test_ill_conditioned_matrices_of_a_search_are_not_reported(capsys):
    with messages.Reporter().reporting_warnings():
        for category in (LinAlgWarning, UserWarning):
            warnings.warn_explicit(category.__name__, category, "sklearn/linear_model.py", 1)
    assert capsys.readouterr().err == "warning: UserWarning\n"


def test_files_of_spike_sorters_are_no_counts(tmp_path):
    np.save(tmp_path / "spike_times.npy", np.sort(np.arange(0, 3000, 7))[:, None])
    message = refusal(tmp_path / "spike_times.npy", "--bin-width", 0.02)
    assert "does not hold counts" in message
    assert "spike_clusters.npy" in message


def test_structs_of_matlab_are_named_with_their_fields(tmp_path):
    savemat(tmp_path / "struct.mat", {"trial": {"counts": np.ones((3, 4)), "cue": 1.0}})
    assert "trial is a struct with the fields counts, cue" in refusal(tmp_path / "struct.mat")


def test_the_index_of_a_table_of_pandas_is_no_neuron(counts):
    lines = (counts / "trials.csv").read_text().splitlines()
    rows = [f"2026-01-01 0:{i},{row}" for i, row in enumerate(lines[1:])]
    indexed = [f",{lines[0]}", *rows]
    (counts / "indexed.csv").write_text("\n".join(indexed))
    found = read(parsed(counts / "indexed.csv", "--bin-width", WIDTH))
    expected = read(parsed(counts / "trials.csv", "--bin-width", WIDTH))
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.neurons.tolist() == expected.neurons.tolist()
