import numpy as np
import pytest
from skorch.callbacks import Callback

from sklearn_stndt.training import net

SEEN = []  # shared by the copies of callbacks that fit makes


class Watch(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        if training:
            SEEN.append(batch[0][:, 0, 0].tolist())


@pytest.fixture
def numbered():
    """Trials whose first count is their number."""
    SEEN.clear()
    counts = np.ones((20, 6, 3))
    counts[:, 0, 0] = np.arange(20)
    return counts


def fit(small, counts):
    small(batch_size=4, max_epochs=5, early_stopping=False, callbacks=[Watch()]).fit(counts)
    return np.reshape([trial for batch in SEEN for trial in batch], (5, -1)).tolist()


def test_an_epoch_contains_all_windows_once(small, numbered):
    epochs = fit(small, numbered)
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 5
    assert epochs[0] != epochs[1]


def test_an_epoch_of_many_windows_is_a_random_part(small, numbered, monkeypatch):
    monkeypatch.setattr(net, "LONGEST_EPOCH", 2)
    epochs = fit(small, numbered)
    assert [len(set(epoch)) for epoch in epochs] == [8] * 5
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 5
