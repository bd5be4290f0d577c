"""Adapters to the software of closed loops."""

import inspect
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt.live import FalconDecoder

N_NEURONS = 12
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def causal(small, perturbed, rows):
    return perturbed(small(causal=True, window=16, max_epochs=1).fit(rows))


@pytest.fixture(scope="module")
def decoder(causal, rows, reaches):
    velocity = reaches.velocity.reshape(-1, 2)
    return make_pipeline(causal, Ridge().fit(causal.transform(rows), velocity))


def test_sessions_of_falcon_are_decoded_bin_by_bin(decoder, rows):
    X = np.stack([rows[:30], rows[50:80]])
    falcon = FalconDecoder(decoder, batch_size=2)
    falcon.reset(["a", "b"])
    falcon.observe(X[:, 0])
    predicted = []
    for bin_ in range(1, 30):
        predicted.append(falcon.predict(X[:, bin_]))
        falcon.on_done(np.array([bin_ == 7, False]))
    expected = np.stack([decoder.predict(x)[1:] for x in X], axis=1)
    assert_allclose(predicted, expected, **CLOSE)


def test_a_new_session_of_falcon_begins_anew(decoder, rows):
    falcon = FalconDecoder(decoder, batch_size=2)
    first = falcon.predict(rows[[0, 0]])  # without a reset, all sessions are new
    falcon.reset(["a", "b"])
    assert_allclose(falcon.predict(rows[[0, 0]]), first, **CLOSE)
    second = falcon.predict(rows[[1, 1]])
    falcon.reset(["a", "c"])
    third = falcon.predict(rows[[2, 0]])
    assert_allclose(third[1], first[1], **CLOSE)
    assert_allclose(third[0], decoder.predict(rows[:3])[2], **CLOSE)
    falcon.reset(["a", "c"])  # again: the same sessions from the beginning
    assert_allclose(falcon.predict(rows[[0, 0]]), first, **CLOSE)
    assert_allclose(falcon.predict(rows[[1, 1]]), second, **CLOSE)
    falcon.set_batch_size(1)
    assert falcon.predict(rows[:1]).shape == (1, 2)


def test_a_trial_of_falcon_that_is_done_is_followed_by_another(decoder, rows):
    falcon = FalconDecoder(decoder, batch_size=2, reset_when_done=True)
    first = falcon.predict(rows[[0, 0]])
    falcon.on_done(np.array([1, 0]))
    after = falcon.predict(rows[[0, 0]])
    assert_allclose(after[0], first[0], **CLOSE)
    assert (after[1] != first[1]).any()


def test_each_session_of_falcon_may_have_its_decoder(decoder, causal, rows):
    falcon = FalconDecoder({"a": decoder, "": causal})
    falcon.reset(["a"])
    assert falcon.predict(rows[:1]).shape == (1, 2)
    falcon.reset(["unknown"])
    assert falcon.predict(rows[:1]).shape == (1, N_NEURONS)
    with pytest.raises(KeyError, match="no estimator for the session 'b', only for 'a'"):
        FalconDecoder({"a": decoder}).reset(["b"])


def test_wrong_batches_of_falcon_are_refused(decoder, rows):
    falcon = FalconDecoder(decoder, batch_size=2)
    with pytest.raises(ValueError, match="dataset_tags has 1 tags, but batch_size is 2"):
        falcon.reset(["a"])
    with pytest.raises(ValueError, match=r"shape \(12,\), but one bin of each of 2 sessions"):
        falcon.predict(rows[0])


def test_methods_are_those_of_falcon():
    interface = pytest.importorskip("falcon_challenge.interface").BCIDecoder
    for name, method in inspect.getmembers(interface, inspect.isfunction):
        if not name.startswith("_"):
            own = inspect.signature(getattr(FalconDecoder, name))
            assert [*own.parameters] == [*inspect.signature(method).parameters], name


def test_ezmsg_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ezmsg", None)
    monkeypatch.setitem(sys.modules, "ezmsg.core", None)
    monkeypatch.delitem(sys.modules, "sklearn_stndt.live.ezmsg", raising=False)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[live\]"'):
        import sklearn_stndt.live.ezmsg  # noqa: F401


@pytest.fixture
def axis_array():
    pytest.importorskip("ezmsg.core")
    from ezmsg.util.messages.axisarray import AxisArray

    return AxisArray


@pytest.mark.parametrize("dims", [["time", "ch"], ["ch", "time"]])
def test_bins_of_an_ezmsg_message(axis_array, causal, decoder, rows, dims):
    from sklearn_stndt.live.ezmsg import infer_message
    from sklearn_stndt.streaming import RateStream

    axes = {
        "time": axis_array.TimeAxis(fs=50.0),
        "ch": axis_array.CoordinateAxis(np.arange(12), ["ch"]),
    }
    for estimator, expected in [
        (causal, causal.transform(rows[:9])),
        (decoder, decoder.predict(rows[:9])),
    ]:
        stream, found = RateStream(estimator), []
        for part in (rows[:4], rows[4:4], rows[4:9]):
            message = axis_array(part if dims[0] == "time" else part.T, dims=dims, axes=axes)
            result = infer_message(stream, message)
            assert result.dims == dims
            assert result.axes["time"] is axes["time"]
            assert ("ch" in result.axes) == (expected.shape[1] == N_NEURONS or not len(part))
            found += [*(result.data if dims[0] == "time" else result.data.T)]
        assert_allclose(found, expected, **CLOSE)
    with pytest.raises(ValueError, match=r"dimensions \['time', 'unit'\]"):
        infer_message(stream, axis_array(rows[:2], dims=["time", "unit"]))


def test_a_unit_of_ezmsg_in_a_pipeline(axis_array, causal, rows):
    """A source, the unit and a sink, run by ezmsg in this process."""
    import ezmsg.core as ez

    from sklearn_stndt.live.ezmsg import RateStreamSettings, RateStreamUnit

    parts, received = np.array_split(rows[:20], 4), []

    class Source(ez.Unit):
        OUTPUT = ez.OutputStream(axis_array)

        @ez.publisher(OUTPUT)
        async def send(self):
            for part in parts:
                yield self.OUTPUT, axis_array(part, dims=["time", "ch"])

    class Sink(ez.Unit):
        INPUT = ez.InputStream(axis_array)

        @ez.subscriber(INPUT)
        async def take(self, message):
            received.append(np.array(message.data))
            if len(received) == len(parts):
                raise ez.NormalTermination

    source, sink = Source(), Sink()
    unit = RateStreamUnit(RateStreamSettings(causal))
    ez.run(
        SOURCE=source,
        UNIT=unit,
        SINK=sink,
        connections=[
            (source.OUTPUT, unit.INPUT_SIGNAL),
            (unit.OUTPUT_SIGNAL, sink.INPUT),
        ],
        force_single_process=True,
    )
    assert_allclose(np.concatenate(received), causal.transform(rows[:20]), **CLOSE)
