"""Comparison of ensembles that must be identical."""

from numpy.testing import assert_array_equal


def assert_same_ensembles(one, other, X):
    """Assert that two ensembles have the same scores, members and rates."""
    assert one.params_ == other.params_
    for name in ("scores_", "selected_", "selection_curve_", "oob_rates_", "oob_score_"):
        assert hasattr(one, name) == hasattr(other, name), name
        if hasattr(one, name):
            assert_array_equal(getattr(one, name), getattr(other, name))
    assert_array_equal(one.transform(X), other.transform(X))
    assert_array_equal(one.rate_std(X), other.rate_std(X))
