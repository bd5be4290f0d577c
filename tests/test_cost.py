"""Estimates of memory, and the batch sizes that follow from them."""

import pytest

from sklearn_stndt.network import STNDT
from sklearn_stndt.network.cost import inference_batch_size, training_bytes


def test_batches_shrink_as_windows_grow():
    sizes = [
        inference_batch_size(STNDT(n_neurons, 20, d_model=d_model), n_bins, n_neurons)
        for n_neurons, n_bins, d_model in [(5, 20, 8), (200, 200, 64), (200, 800, 64)]
    ]
    assert sizes[0] == 256
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[1] > sizes[2] >= 1
    assert inference_batch_size(STNDT(5, 20), 10**6, 5) == 1


@pytest.mark.parametrize(
    ("smaller", "larger", "least"),
    [((1000, 50), (4000, 50), 12), ((50, 500), (50, 4000), 30), ((50, 20), (100, 20), 1.8)],
    ids=["maps of bins", "maps of neurons", "streams"],
)
def test_the_estimate_grows_with_windows_and_neurons(smaller, larger, least):
    module = STNDT(4, 4)
    assert training_bytes(module, *larger) > least * training_bytes(module, *smaller)


def test_spatial_attention_in_every_layer_takes_memory_in_every_layer():
    once, every = (STNDT(4, 4, n_layers=4, spatial_layers=at) for at in ("last", "all"))
    assert training_bytes(every, 10, 3000) > 3 * training_bytes(once, 10, 3000)
