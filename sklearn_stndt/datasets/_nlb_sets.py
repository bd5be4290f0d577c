"""Properties of the data sets of the Neural Latents Benchmark."""

from dataclasses import dataclass

SCALING = ("mc_maze_large", "mc_maze_medium", "mc_maze_small")


@dataclass(frozen=True)
class NLBSet:
    """One data set. Times are in milliseconds, as the benchmark defines them."""

    dandiset: str
    file: str  # session, as it appears in the file names
    n_heldin: int
    n_heldout: int
    align: str  # column of the trials table
    window: tuple[int, int]
    lag: int = 0  # by which behaviour lags the spikes
    behavior: str | None = None  # time series; None: columns of the trials table
    conditions: tuple[str, ...] = ()
    kernel: int = 0  # standard deviation of the Gaussian that smooths PSTHs
    decoders: str | None = None  # column with two values, each with its own decoder
    n_train: int | None = None  # training trials; part of score names in the scaling group
    forward: int = 200


def _maze(dandiset: str, file: str, n_heldin: int, n_heldout: int, **more: int) -> NLBSet:
    return NLBSet(
        dandiset,
        file,
        n_heldin,
        n_heldout,
        "move_onset_time",
        (-250, 450),
        behavior="hand_vel",
        conditions=("trial_type", "trial_version"),
        **more,  # type: ignore[arg-type]
    )


SETS = {
    "mc_maze": _maze("000128", "full", 137, 45, lag=100, kernel=70),
    "mc_rtt": NLBSet("000129", "", 98, 32, "start_time", (0, 600), lag=140, behavior="finger_vel"),
    "area2_bump": NLBSet(
        "000127",
        "",
        49,
        16,
        "move_onset_time",
        (-100, 500),
        lag=-20,
        behavior="hand_vel",
        conditions=("cond_dir", "ctr_hold_bump"),
        kernel=40,
        decoders="ctr_hold_bump",
    ),
    "dmfc_rsg": NLBSet(
        "000130",
        "",
        40,
        14,
        "go_time",
        (-1500, 0),
        conditions=("is_eye", "theta", "is_short", "ts"),
        kernel=70,
    ),
    "mc_maze_large": _maze("000138", "large", 122, 40, lag=120, kernel=50, n_train=500),
    "mc_maze_medium": _maze("000139", "medium", 114, 38, lag=120, kernel=50, n_train=250),
    "mc_maze_small": _maze("000140", "small", 107, 35, lag=120, kernel=50, n_train=100),
}


def is_key(key: str) -> bool:
    """Whether a group has the name of a data set, such as mc_maze_20."""
    return key.removesuffix("_20") in SETS


def split_key(key: str) -> tuple[str, int | None]:
    """Split a group name, such as mc_maze_20, into data set and bin width in ms."""
    if not isinstance(key, str):
        raise TypeError(f"name must be a string, got {key!r}; pass one of {', '.join(SETS)}.")
    if key in SETS:
        return key, None
    if key.endswith("_20") and key[:-3] in SETS:
        return key[:-3], 20
    if key in ("mc_maze_scaling", "mc_maze_scaling_20"):
        raise ValueError(
            f"{key!r} consists of three data sets, {', '.join(SCALING)}. Load each of them, and "
            "merge the three submissions into one dictionary for evaluate."
        )
    raise ValueError(
        f"There is no data set {key!r} in the benchmark; pass one of {', '.join(SETS)}. Append "
        "_20 for bins of 20 ms."
    )


def group_key(name: str, bin_ms: int) -> str:
    """Name of the group of a data set in target and submission files."""
    return name if bin_ms == 5 else f"{name}_{bin_ms}"
