"""The network: influences on its rates, its shapes, and its attention weights."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import N_BINS, N_NEURONS, PUBLISHED, all_visible, draw_counts

from sklearn_stndt.network import STNDT

counts = partial(draw_counts, dtype=torch.float64)
N_TRIALS = 3
TEMPORAL = {"attention": "temporal"}
LAST = {"spatial_layers": "last"}
ALL = {"spatial_layers": "all"}
FORMS = {
    "temporal": TEMPORAL,
    "last": LAST,
    "all": ALL,
    "last, one channel per neuron": {**LAST, "d_model": None},
    "published": PUBLISHED,
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


pytestmark = pytest.mark.usefixtures("torch_seed")


def build(n_neurons=N_NEURONS, n_bins=N_BINS, **params):
    """A small network in float64, without dropout and without parameters that are 0."""
    small = {"n_layers": 2, "n_heads": 2, "d_model": 6, "dim_feedforward": 8, "d_spatial": 4}
    dropout = {"dropout": 0.0, "dropout_embedding": 0.0, "dropout_rates": 0.0}
    network = STNDT(n_neurons, n_bins, **(small | dropout | params)).double().eval()
    mean = torch.linspace(0.2, 2.0, n_neurons, dtype=torch.float64)
    network.set_statistics(mean, mean.sqrt(), 0.3 + 0.1 * mean)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def assert_same_bits(first, second):
    for a, b in zip(first, second, strict=True):
        if isinstance(a, list):
            assert_same_bits(a, b)
        else:
            assert torch.equal(a, b)


# ---- context


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("context", [(0, 0), (2, 1), (0, 3), (5, 0), (4, 4), (1, 20)])
def test_a_bin_influences_the_bins_of_its_context_and_no_other(n_layers, context, local):
    back, ahead = context
    network = build(attention="temporal", n_layers=n_layers, context=context, local_attention=local)
    spikes = counts(n_trials=1)
    visible = all_visible(spikes)
    before = network(spikes, visible).log_rates
    for changed in (0, 5, N_BINS - 1):
        other = spikes.clone()
        other[0, changed] += 3
        differs = (network(other, visible).log_rates != before).any(2)[0]
        # a bin that attends to earlier bins is influenced by them, so influence goes forward
        expected = [changed - ahead <= t <= changed + back for t in range(N_BINS)]
        assert differs.tolist() == expected


@every_form
def test_without_a_context_every_bin_influences_every_other(form):
    network = build(**form)
    spikes = counts(n_trials=1)
    before = network(spikes, all_visible(spikes)).log_rates
    spikes[0, 0] += 3
    assert (network(spikes, all_visible(spikes)).log_rates != before).any(2).all()


# ---- hidden entries


def speckled(spikes):
    """Random hidden entries, a hidden bin, a hidden neuron, and a hidden end of a trial."""
    visible = torch.rand(spikes.shape) < 0.7
    visible[0, 4] = False
    visible[1, :, 2] = False
    visible[2, -3:] = False
    return visible


@pytest.mark.parametrize("scaling", ["sqrt", "standardized", "counts"])
@pytest.mark.parametrize("context", [None, (2, 2)])
@every_form
def test_hidden_entries_do_not_influence_the_output(form, scaling, context):
    network = build(**(form | {"input_scaling": scaling, "context": context}))
    spikes = counts()
    visible = speckled(spikes)
    before = network(spikes, visible, return_attention=True)
    for value in (0.0, 7.0, 1e30, float("nan"), float("inf"), -1.0):
        hidden = torch.where(visible, spikes, value)
        assert_same_bits(network(hidden, visible, return_attention=True), before)
        assert torch.equal(network(hidden, visible).log_rates, network(spikes, visible).log_rates)


@every_form
def test_visible_entries_influence_rates(form):
    network = build(**form)
    spikes = counts()
    visible = speckled(spikes)
    before = network(spikes, visible).log_rates
    entry = visible[0].nonzero()[0]
    spikes[(0, *entry)] += 1
    assert not torch.equal(network(spikes, visible).log_rates[0], before[0])


@every_form
def test_a_hidden_count_is_not_a_count_of_zero(form):
    # only in the published form are hidden entries zeros
    network = build(**form)
    spikes = torch.zeros(1, N_BINS, N_NEURONS, dtype=torch.float64)
    visible = all_visible(spikes)
    before = network(spikes, visible).log_rates
    visible[0, 3, 1] = False
    same = torch.equal(network(spikes, visible).log_rates, before)
    assert same == (form is PUBLISHED)


@pytest.mark.parametrize("context", [None, (1, 1)])
@every_form
def test_a_hidden_trial_is_finite_and_does_not_influence_others(form, context):
    network = build(**form, context=context)
    spikes = counts()
    visible = all_visible(spikes)
    visible[1] = False
    output = network(spikes, visible, return_attention=True)
    for tensor in (*output[:2], *output.temporal_weights, *output.spatial_weights):
        assert tensor.isfinite().all()
    alone = network(spikes[[0, 2]], visible[[0, 2]])
    torch.testing.assert_close(output.log_rates[[0, 2]], alone.log_rates)
    torch.testing.assert_close(output.encoded[[0, 2]], alone.encoded)


@every_form
def test_gradients_of_a_batch_with_a_hidden_trial_are_finite(form):
    network = build(**form).requires_grad_(True)
    spikes = counts()
    visible = all_visible(spikes)
    visible[1] = False
    network(spikes, visible).log_rates.sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def shortened(network, n_bins, **params):
    """The same network for a window of fewer bins, without the parameters of later bins."""
    short = build(n_bins=n_bins, **params)
    state = network.state_dict()
    for name, target in short.state_dict().items():
        state[name] = state[name][tuple(slice(n) for n in target.shape)]
    short.load_state_dict(state)
    return short


@pytest.mark.parametrize("n_padding", [1, 4, 11])
@pytest.mark.parametrize("context", [None, (3, 2)])
@every_form
def test_padding_changes_no_rate_of_the_visible_bins(form, context, n_padding):
    # the default width of spatial keys in the published form depends on the window
    params = form | {"context": context, "d_spatial": 4}
    network = build(**params)
    spikes = counts()
    n_bins = N_BINS - n_padding
    visible = all_visible(spikes)
    visible[:, n_bins:] = False
    visible[0, 0, :2] = False
    padded = network(spikes, visible, return_attention=True)
    short = shortened(network, n_bins, **params)
    expected = short(spikes[:, :n_bins], visible[:, :n_bins], return_attention=True)
    torch.testing.assert_close(padded.log_rates[:, :n_bins], expected.log_rates)
    torch.testing.assert_close(padded.encoded, expected.encoded)
    for weights, short_weights in zip(
        padded.temporal_weights, expected.temporal_weights, strict=True
    ):
        torch.testing.assert_close(weights[..., :n_bins, :n_bins], short_weights)
    for weights, short_weights in zip(
        padded.spatial_weights, expected.spatial_weights, strict=True
    ):
        torch.testing.assert_close(weights, short_weights)


@every_form
def test_trials_of_a_batch_do_not_influence_each_other(form):
    network = build(**form)
    spikes = counts()
    visible = speckled(spikes)
    together = network(spikes, visible)
    for trial in range(N_TRIALS):
        alone = network(spikes[[trial]], visible[[trial]])
        torch.testing.assert_close(together.log_rates[[trial]], alone.log_rates)
        torch.testing.assert_close(together.encoded[[trial]], alone.encoded)


# ---- neurons

# axis of neurons of each tensor of the default network
NEURON_AXES = {
    "scaling.center": 0,
    "scaling.scale": 0,
    "scaling.token": 0,
    "embed.weight": 1,
    "mix_last.from_neurons.weight": 1,
    "readout.weight": 0,
    "readout.bias": 0,
    "readout.gain": 0,
    "readout.shift": 0,
}


@pytest.mark.parametrize("scaling", ["sqrt", "standardized", "counts"])
def test_permuting_neurons_permutes_rates(scaling):
    network = build(input_scaling=scaling)
    permuted = build(input_scaling=scaling)
    order = torch.randperm(N_NEURONS)
    state = network.state_dict()
    for name, axis in NEURON_AXES.items():
        state[name] = state[name].index_select(axis, order)
    permuted.load_state_dict(state)
    spikes = counts()
    visible = speckled(spikes)
    output = network(spikes, visible, return_attention=True)
    other = permuted(spikes[..., order], visible[..., order], return_attention=True)
    torch.testing.assert_close(other.log_rates, output.log_rates[..., order])
    torch.testing.assert_close(other.encoded, output.encoded)
    torch.testing.assert_close(
        other.spatial_weights[0], output.spatial_weights[0][:, order][:, :, order]
    )


@pytest.mark.parametrize("d_model", [None, 6])
def test_spatial_weights_mix_neurons_as_defined(d_model):
    mixing = build(d_model=d_model).mix_last
    x = torch.randn(2, N_BINS, d_model or N_NEURONS, dtype=torch.float64)
    courses = torch.randn(2, N_NEURONS, N_BINS, dtype=torch.float64)
    visible = torch.ones(2, N_NEURONS, dtype=torch.bool)
    visible[1, 3] = False
    readout = torch.randn(N_NEURONS, x.shape[-1], dtype=torch.float64)
    out, weights = mixing(x, courses, visible, readout)
    channels = mixing.norm(x) if d_model is None else mixing.norm(x) @ readout.T
    mixed = torch.zeros_like(channels)
    for neuron in range(N_NEURONS):
        for other in range(N_NEURONS):
            # a row of the weights is the attention of one neuron to the others
            mixed[:, :, neuron] += weights[:, neuron, other, None] * channels[:, :, other]
    if d_model is not None:
        mixed = mixing.from_neurons(mixed)
    torch.testing.assert_close(out, mixed)


# ---- shapes


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 7)),
    params=st.fixed_dictionaries(
        {
            "n_layers": st.integers(1, 3),
            "n_heads": st.integers(1, 5),
            "d_model": st.none() | st.integers(1, 7),
            "dim_feedforward": st.integers(1, 5),
            "attention": st.sampled_from(["spatiotemporal", "temporal"]),
            "context": st.none() | st.tuples(st.integers(0, 4), st.integers(0, 4)),
            "local_attention": st.booleans(),
            "spatial_layers": st.sampled_from(["last", "all"]),
            "n_spatial_heads": st.integers(1, 3),
            "d_spatial": st.none() | st.integers(1, 5),
            "input_scaling": st.sampled_from(["sqrt", "standardized", "counts"]),
        }
    ),
    return_attention=st.booleans(),
)
def test_every_shape_works(shape, params, return_attention):
    n_trials, n_bins, n_neurons = shape
    network = build(n_neurons, n_bins, **params)
    spikes = counts(*shape)
    output = network(spikes, torch.rand(shape) < 0.6, return_attention)
    assert output.log_rates.shape == shape
    assert output.log_rates.isfinite().all()
    assert output.encoded.shape == (n_trials, params["d_model"] or n_neurons)
    assert output.encoded.isfinite().all()
    n_layers, n_heads = params["n_layers"], params["n_heads"]
    n_mixings = 0
    if params["attention"] == "spatiotemporal":
        n_mixings = 1 if params["spatial_layers"] == "last" else n_layers
    temporal = [tuple(weights.shape) for weights in output.temporal_weights]
    spatial = [tuple(weights.shape) for weights in output.spatial_weights]
    assert temporal == return_attention * n_layers * [(n_trials, n_heads, n_bins, n_bins)]
    assert spatial == return_attention * n_mixings * [(n_trials, n_neurons, n_neurons)]


def test_single_precision_is_kept():
    network = build().float()
    spikes = counts().float()
    output = network(spikes, all_visible(spikes), return_attention=True)
    assert output.log_rates.dtype == output.encoded.dtype == torch.float32
    assert output.temporal_weights[0].dtype == output.spatial_weights[0].dtype == torch.float32


# ---- attention weights


@pytest.mark.parametrize("context", [None, (3, 1)])
@every_form
def test_attention_weights_sum_to_1_over_visible_keys(form, context):
    network = build(**form, context=context)
    spikes = counts()
    visible = speckled(spikes)
    output = network(spikes, visible, return_attention=True)
    bins = torch.arange(N_BINS)
    ahead = bins[None, :] - bins[:, None]
    for weights, band in zip(output.temporal_weights, network.bands, strict=True):
        allowed = visible.any(2)[:, None, None, :]
        if band is not None:
            allowed = allowed & (ahead >= -band[0]) & (ahead <= band[1])
        allowed = allowed.expand(weights.shape)
        assert torch.equal(weights > 0, allowed)
        torch.testing.assert_close(weights.sum(-1), allowed.any(-1).double())
    for weights in output.spatial_weights:
        seen = visible.any(1)[:, None, :].expand(weights.shape)
        assert torch.equal(weights > 0, seen)
        torch.testing.assert_close(weights.sum(-1), torch.ones(N_TRIALS, N_NEURONS).double())


@pytest.mark.parametrize("context", [None, (3, 1)])
@every_form
def test_returning_attention_weights_changes_no_rate(form, context):
    network = build(**form, context=context)
    spikes = counts()
    for visible in (all_visible(spikes), speckled(spikes)):
        fused = network(spikes, visible)
        output = network(spikes, visible, return_attention=True)
        torch.testing.assert_close(output.log_rates, fused.log_rates)
        torch.testing.assert_close(output.encoded, fused.encoded)
        assert fused.temporal_weights == fused.spatial_weights == []


def test_rates_stay_finite_however_large_the_counts():
    network = build()
    network.readout.weight *= 1e4
    spikes = 1e6 * counts()
    rates = network(spikes, all_visible(spikes)).log_rates.exp()
    assert rates.float().square().isfinite().all()
