"""For tests with random input: odd values, what may happen to them, and how many to try."""

import datetime
import decimal
import os
import traceback

import numpy as np
import pandas as pd
from hypothesis import settings

ODD_VALUES = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "2.5": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1e300": 1e300,
    "1e-300": 1e-300,
    "1j": 1j,
    "2**70": 2**70,
    "text": "a",
    "bytes": b"a",
    "[]": [],
    "[[]]": [[]],
    "ragged": [1, [2, 3]],
    "[None]": [None],
    "['a']": ["a"],
    "[nan]": [np.nan],
    "[inf]": [np.inf],
    "[-1.0]": [-1.0],
    "unsorted": [2.0, 1.0],
    "[5, 7]": [5, 7],
    "[1j]": [1j],
    "[True, False]": [True, False],
    "object": object(),
    "{}": {},
    "{'a': 1}": {"a": 1},
    "0d": np.array(3.0),
    "2d": np.zeros((2, 2)),
    "empty 2d": np.zeros((2, 0)),
    "4d": np.zeros((1, 1, 1, 1)),
    "date": np.datetime64("2020-01-01"),
    "datetime": datetime.datetime(2020, 1, 1),
    "duration": np.timedelta64(5, "ms"),
    "not a time": np.timedelta64("NaT"),
    "float16": np.array([1, 2], dtype=np.float16),
    "longdouble": np.array([1, 2], dtype=np.longdouble),
    "uint8": np.array([255, 0], dtype=np.uint8),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "decimal": decimal.Decimal("0.1"),
    "set": {1.0},
    "iterator": iter([]),
    "Series": pd.Series([1.0, 2.0]),
    "DataFrame": pd.DataFrame({"a": [1.0, 2.0]}),
    "objects": np.array([1.0, "a", None], dtype=object),
    "records": np.zeros(2, dtype=[("a", "f8")]),
    "function": len,
    "huge": np.full(3, 1e300),
    "int64": np.array([2**63 - 1, -(2**63)]),
}
LIBRARIES = ("sklearn/utils/", "sklearn/base.py")  # whose own messages are good ones


def is_in_words(error):
    """Whether an error was raised on purpose: by this package, or by a check of scikit-learn."""
    if not isinstance(error, ValueError | TypeError | OSError | ImportError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = last.filename.replace("\\", "/")
    ours = "/sklearn_stndt/" in place and (last.line or "").startswith("raise")
    return ours or any(name in place for name in LIBRARIES)


def outcome(function, *args, **kwargs):
    """Return the result, or the error if it is in words; other errors are raised."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        if is_in_words(error):
            return error
        raise


def examples(n):
    """Settings of a test with `n` examples, and fifty times as many in the profile "long"."""
    is_long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    return settings(max_examples=50 * n if is_long else n)
