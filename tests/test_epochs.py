import numpy as np
import pytest
from skorch.callbacks import Callback

from sklearn_stndt.training import net

SEEN = []  # fit copies callbacks, so they tell what they saw here


class Watch(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        if training:
            SEEN.append(batch[0][:, 0, 0].tolist())


@pytest.fixture
def numbered():
    """Trials that are known by their first count."""
    SEEN.clear()
    counts = np.ones((20, 6, 3))
    counts[:, 0, 0] = np.arange(20)
    return counts


def fit(small, counts):
    small(batch_size=4, max_epochs=5, early_stopping=False, callbacks=[Watch()]).fit(counts)
    return np.reshape([trial for batch in SEEN for trial in batch], (5, -1)).tolist()


def test_an_epoch_is_all_windows_once(small, numbered):
    epochs = fit(small, numbered)
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 5
    assert epochs[0] != epochs[1]


def test_of_many_windows_an_epoch_is_a_part_drawn_anew(small, numbered, monkeypatch):
    monkeypatch.setattr(net, "LONGEST_EPOCH", 2)
    epochs = fit(small, numbered)
    assert [len(set(epoch)) for epoch in epochs] == [8] * 5
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 5
