"""Loaders and odd input: the result is right, or the error says in words what is wrong."""

import shutil

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from odd_values import ODD_VALUES, examples, outcome
from test_calcium_files import write_caiman
from test_hostile_files import LOADERS, write_h5, write_nwb, write_ophys, write_submission
from test_nlb_files import eval_input, rates_like, target_of, train_input

from sklearn_stndt.datasets import (
    align_to_events,
    bin_spikes,
    bin_trials,
    evaluate,
    load_nlb,
    load_nwb,
    load_submission,
    save_submission,
)
from sklearn_stndt.metrics import decoding

pytestmark = pytest.mark.filterwarnings("ignore")  # of clocks, and of what is left out

odd = st.sampled_from(sorted(ODD_VALUES))
KEY = "mc_maze_small_20"


def replaced(draw_from):
    """Strategy: the name of an argument, and that of an odd value for it."""
    return st.tuples(st.sampled_from(sorted(draw_from)), odd)


# -- spike times ----------

TRAINS = [np.array([0.1, 0.2, 0.35]), np.array([0.05, 0.3])]
BINNING = {
    bin_spikes: {"spike_times": TRAINS, "bin_width": 0.1, "start": 0.0, "stop": 1.0, "dtype": None},
    align_to_events: {
        "spike_times": TRAINS,
        "events": [0.2, 0.3],
        "window": (-0.1, 0.1),
        "bin_width": 0.1,
    },
    bin_trials: {
        "spike_times": TRAINS,
        "starts": [0.0, 0.2],
        "stops": [0.2, 0.5],
        "bin_width": 0.1,
    },
}


@pytest.mark.parametrize("function", BINNING, ids=lambda function: function.__name__)
@examples(60)
@given(data=st.data())
def test_binning_of_odd_values(function, data):
    name, value = data.draw(replaced(BINNING[function]))
    result = outcome(function, **(BINNING[function] | {name: ODD_VALUES[value]}))
    if isinstance(result, np.ndarray):
        assert result.dtype.kind in "uf"
        assert result.size


@examples(40)
@given(value=odd, beside=st.booleans())
@example("huge", True)  # cannot be told from the next bin
def test_odd_spike_trains(value, beside):
    trains = [ODD_VALUES[value], TRAINS[0]] if beside else [ODD_VALUES[value]]
    result = outcome(bin_spikes, trains, 0.1)
    if isinstance(result, np.ndarray):
        assert result.shape[1] == len(trains)


# -- arrays of the benchmark ----------


@pytest.fixture(scope="module")
def parts():
    """Inputs, and a target with everything that one may hold."""
    return train_input(), eval_input(), with_all(target_of())


def with_all(target):
    target[KEY] |= {
        "train_decode_mask": np.ones((6, 2), dtype=bool),
        "eval_decode_mask": np.ones((4, 2), dtype=bool),
        "train_jitter": np.zeros(6, dtype=int),
        "eval_jitter": np.zeros(4, dtype=int),
    }
    return target


@pytest.fixture(scope="module")
def scored():
    """A target and rates that are quickly scored, by a decoder with one penalty."""
    target = target_of(n_bins=5, heldin=4, heldout=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "ALPHAS", decoding.ALPHAS[-1:])
        yield with_all(target), rates_like(target)


@examples(80)
@given(data=st.data())
def test_odd_arrays_of_the_benchmark(parts, data):
    train, evaluation, target = parts
    content = train | evaluation | target[KEY]
    name, value = data.draw(replaced(content))
    content = dict.fromkeys([name], ODD_VALUES[value])
    inputs = [part | {k: content[k] for k in part.keys() & content} for part in (train, evaluation)]
    group = target[KEY] | {k: content[k] for k in target[KEY].keys() & content}
    result = outcome(load_nlb, [*inputs, {KEY: group}])
    if not isinstance(result, Exception):
        assert result.X_train.shape == (6, 45, 142)
        assert name not in train | evaluation
        for mask in (result.decode_mask_train, result.decode_mask_eval):
            assert mask is None or mask.all()


@examples(60)
@given(data=st.data())
def test_odd_arrays_of_target_and_submission(scored, data):
    target, rates = scored
    which = data.draw(st.sampled_from(["target", "rates"]))
    arrays = {"target": target[KEY], "rates": rates[KEY]}
    name, value = data.draw(replaced(arrays[which]))
    arrays[which] = arrays[which] | {name: ODD_VALUES[value]}
    result = outcome(evaluate, {KEY: arrays["target"]}, {KEY: arrays["rates"]}, check=False)
    assert isinstance(result, Exception | list)


@examples(20)
@given(value=odd)
def test_what_cannot_be_saved_leaves_the_file_as_it_was(scored, tmp_path_factory, value):
    rates = scored[1]
    path = tmp_path_factory.mktemp("saved") / "submission.h5"
    save_submission(rates, path)
    before = path.read_bytes()
    other = {KEY: rates[KEY] | {"eval_rates_heldin": ODD_VALUES[value]}}
    result = outcome(save_submission, other, path, overwrite=True)
    assert isinstance(result, ValueError | TypeError)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["submission.h5"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eval_decode_mask", np.array(["False"] * 4), "eval_decode_mask is .* expected True"),
        ("eval_decode_mask", [0.5, 1, 0, 1], "holds 0.5; expected True and False"),
        ("eval_cond_idx", [[0, 4], [1]], r"eval_cond_idx\[0\] holds 4; .* from 0 to 3"),
        ("eval_cond_idx", [[0], [0]], r"trial 0 is named 2 times"),
        ("eval_behavior", 3.0, "eval_behavior has no trials"),
        ("eval_behavior", [1, [2, 3]], "eval_behavior is no array of behaviour"),
        ("eval_spikes_heldout", np.full((4, 35, 35), -1.0), "is below 0 in 4,900 of 4,900"),
        ("psth", np.zeros((2, 35, 3)), "psth has 3 neurons|psth has shape"),
    ],
)
def test_what_is_wrong_with_an_array_of_a_target_is_said(parts, key, value, message):
    train, evaluation, target = parts
    with pytest.raises(ValueError, match=message):
        load_nlb([train, evaluation, {KEY: target[KEY] | {key: value}}])


@pytest.mark.parametrize("width", ["a", np.nan, np.inf, 0, -0.02, None, [0.02]])
def test_odd_widths_of_the_benchmark(parts, width):
    train, evaluation, *_ = parts
    result = outcome(load_nlb, [train, evaluation], bin_width=width)
    assert (width is None) != isinstance(result, ValueError | TypeError)


# -- files ----------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def originals(folder):
    """An honest file for each way of writing."""
    return {
        write_h5: write_h5(folder / "input.h5"),
        write_submission: write_submission(folder / "submission.h5"),
        write_caiman: write_caiman(folder / "cnmf.hdf5"),
        write_nwb: write_nwb(folder / "session.nwb"),
        write_ophys: write_ophys(folder / "imaging.nwb"),
    }


def check_damaged(originals, folder, loader, content):
    write, load, _ = LOADERS[loader]
    path = folder / f"damaged{originals[write].suffix}"
    path.write_bytes(content)
    result = outcome(load, path)
    assert not isinstance(result, Exception) or path.name in str(result)


def flipped(data, content):
    """Other values of one to three bytes, half of the time near the start of the file."""
    content = bytearray(content)
    last = data.draw(st.sampled_from([min(4000, len(content)), len(content)])) - 1
    places = st.tuples(st.integers(0, last), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] = value
    return bytes(content)


@pytest.mark.parametrize("loader", ["load_nlb", "load_submission", "load_caiman"])
@examples(100)
@given(data=st.data())
def test_flipped_bytes_of_hdf5_files(originals, folder, loader, data):
    content = originals[LOADERS[loader][0]].read_bytes()
    check_damaged(originals, folder, loader, flipped(data, content))


@pytest.mark.parametrize("loader", ["load_nwb", "load_nwb_ophys"])
@examples(12)
@given(data=st.data())
def test_flipped_bytes_of_nwb_files(originals, folder, loader, data):
    content = originals[LOADERS[loader][0]].read_bytes()
    check_damaged(originals, folder, loader, flipped(data, content))


@pytest.mark.parametrize(
    "loader", ["load_nlb", "load_submission", "load_caiman", "load_nwb", "load_nwb_ophys"]
)
@examples(8)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files(originals, folder, loader, share):
    content = originals[LOADERS[loader][0]].read_bytes()
    check_damaged(originals, folder, loader, content[: int(share * len(content))])


def test_a_name_that_is_no_text_is_damage(folder):
    path = write_submission(folder / "name.h5")
    path.write_bytes(path.read_bytes().replace(b"spikes_heldout", b"spikes_\x80eldout"))
    with pytest.raises(
        ValueError, match=r"name\.h5: /area2_bump_20 holds the name b'eval_spikes_\\x80"
    ):
        load_submission(path)


# -- fields of NWB files ----------

FIELDS = [
    "units/id",
    "units/spike_times",
    "units/spike_times_index",
    "intervals/trials/id",
    "intervals/trials/start_time",
    "intervals/trials/stop_time",
    "acquisition/pos/data",
    "acquisition/pos/starting_time",
]
NWB_VALUES = {
    "no entries": np.zeros(0),
    "scalar": 3.0,
    "not finite": np.array([np.nan, np.inf]),
    "negative": np.array([-1.0, -2.0]),
    "huge": np.array([1.0, 1e300]),
    "far": np.array([1.0, 1e9]),
    "text": np.array([b"a", b"b"]),
    "2d": np.zeros((2, 2)),
    "complex": np.array([1j, 2j]),
    "bool": np.array([True, False]),
    "records": np.zeros(2, dtype=[("a", "f8")]),
    "unsorted": np.array([30, 10]),
    "too long": np.arange(1000),
}
WAYS = {
    "trials": {},
    "whole": {"trials": False},
    "aligned": {"align": "start_time", "window": (0, 0.5)},
}


def replace_field(path, name, value):
    with h5py.File(path, "a") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = value
        file[name].attrs.update(attributes)


@examples(30)
@given(
    field=st.sampled_from(FIELDS),
    value=st.sampled_from(sorted(NWB_VALUES)),
    way=st.sampled_from(sorted(WAYS)),
)
@example("units/spike_times", "far", "whole")  # PiB of bins
@example("intervals/trials/stop_time", "not finite", "whole")
@example("units/spike_times_index", "unsorted", "trials")
def test_odd_fields_of_nwb_files(originals, folder, field, value, way):
    path = folder / "odd.nwb"
    shutil.copy(originals[write_nwb], path)
    replace_field(path, field, NWB_VALUES[value])
    result = outcome(load_nwb, path, bin_width=0.1, **WAYS[way])
    if isinstance(result, Exception):
        assert path.name in str(result)
    else:
        assert result.spikes.dtype == np.float32
        assert not (result.spikes < 0).any()


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        (("acquisition/pos/starting_time", "rate"), np.nan, "has a rate of nan Hz"),
        (("acquisition/pos/data", "conversion"), np.inf, "has a conversion of inf"),
    ],
)
def test_a_series_whose_clock_or_unit_is_not_possible_is_left_out_aloud(
    originals, folder, attribute, value, message
):
    path = folder / "series.nwb"
    shutil.copy(originals[write_nwb], path)
    with h5py.File(path, "a") as file:
        file[attribute[0]].attrs[attribute[1]] = value
    with pytest.warns(UserWarning, match=f"'pos' {message}"):
        assert not load_nwb(path, bin_width=0.1).behavior
    with pytest.raises(ValueError, match=f"pos is not a numeric time series: it {message}"):
        load_nwb(path, bin_width=0.1, behavior="pos")


def test_a_spike_far_away_ends_before_memory_is_taken(originals, folder):
    path = folder / "far.nwb"
    shutil.copy(originals[write_nwb], path)
    replace_field(path, "units/spike_times", np.append(np.arange(39) / 20, 1e9))
    with pytest.raises(ValueError, match=r"far\.nwb.*1e\+09 s, the end of the spikes of the unit"):
        load_nwb(path, trials=False)
    shutil.copy(originals[write_nwb], path)
    replace_field(path, "intervals/trials/stop_time", np.array([1e12]))
    with pytest.raises(ValueError, match=r"far\.nwb: trials\[0\] lasts 1e\+12 s.* PiB of memory"):
        load_nwb(path)
