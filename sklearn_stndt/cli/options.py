"""Options of the command, and the help of each subcommand."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from sklearn_stndt.cli import pages
from sklearn_stndt.cli.messages import CommandError

DEFAULT_BIN_WIDTH = 0.02  # s, of bins of spike times
PROGRAM = "python -m sklearn_stndt"
AXES = ("trials", "bins", "neurons")


class Parser(argparse.ArgumentParser):
    """Parser whose errors take one line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**kwargs)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}. See {self.prog} --help\n")


def _as(kind: type, text: str, wanted: str, is_valid: Callable[[Any], bool]) -> Any:
    """Convert the text of an option; an error says what is wanted."""
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not is_valid(number):
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    return number


def _number(text: str) -> float:
    return _as(float, text, "a number", math.isfinite)


def _positive(text: str) -> float:
    return _as(float, text, "a positive number", lambda x: 0 < x < math.inf)


def _bin_width(text: str) -> float:
    wanted = "a number of seconds up to 1; 20 ms are 0.02"
    return _as(float, text, wanted, lambda x: 0 < x <= 1)


def _not_negative(text: str) -> float:
    return _as(float, text, "a number of at least 0", lambda x: 0 <= x < math.inf)


def _fraction(text: str) -> float:
    return _as(float, text, "at least 0 and below 1", lambda x: 0 <= x < 1)


def _whole(text: str) -> int:
    return _as(int, text, "a whole number of at least 1", lambda x: x >= 1)


def _folds(text: str) -> int:
    return _as(int, text, "a whole number of at least 2", lambda x: x >= 2)


def _seed(text: str) -> int:
    return _as(int, text, "a whole number from 0 to 4294967295", lambda x: 0 <= x < 2**32)


def _epochs(text: str) -> int | str:
    if text in ("auto", "long"):
        return text
    return _as(int, text, "auto, long or a whole number of at least 1", lambda x: x >= 1)


def _axes(text: str) -> tuple[str, ...]:
    axes = tuple(text.replace(" ", "").split(","))
    if sorted(axes) not in (sorted(AXES), sorted(AXES[1:])):
        raise argparse.ArgumentTypeError(
            "must name trials, bins and neurons in the order of the array, such as "
            f"neurons,bins,trials, or bins and neurons; got {text}"
        )
    return axes


def _add_reading(parser: Parser) -> None:
    """Add options that say how a recording is read."""
    group = parser.add_argument_group("what is read from the file")
    group.add_argument(
        "--bin-width",
        type=_bin_width,
        metavar="SECONDS",
        help="width of a bin. Spike times are counted in bins of this width (default: "
        f"{DEFAULT_BIN_WIDTH}); for counts it says how wide their bins are, and is needed unless "
        "the file has a variable bin_width",
    )
    group.add_argument(
        "--align",
        metavar="NAME",
        help="cut a trial around each event: a column of the trials table (NWB), or a variable "
        "with times of events (.npz, .mat); needs --window",
    )
    group.add_argument(
        "--window",
        type=_number,
        nargs=2,
        metavar=("BEGIN", "END"),
        help="start and end of a trial in seconds relative to the event, such as -0.2 0.8. In NWB, "
        "without --align: relative to start_time. Default: whole trials",
    )
    group.add_argument(
        "--trials",
        metavar="NAME",
        help="NWB: name of the table of intervals that holds the trials (default: trials). .npz, "
        ".mat: variable of shape (trials, 2) with starts and ends in seconds",
    )
    group.add_argument(
        "--no-trials",
        action="store_true",
        help="use the whole recording, not the trials (NWB)",
    )
    group.add_argument(
        "--units",
        metavar="CONDITION",
        help='units to use, a condition on columns of the units table, such as "quality == '
        "'good' and snr > 4\" (NWB)",
    )
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out units and trials with impossible times instead of stopping (NWB)",
    )
    group = parser.add_argument_group("what is read from .npy, .npz, .mat and .csv files")
    group.add_argument(
        "--counts",
        metavar="NAME",
        help="variable with spike counts per bin (default: counts, spikes, or the only array)",
    )
    group.add_argument(
        "--axes",
        type=_axes,
        metavar="LIST",
        help="order of the axes of the counts, such as neurons,bins,trials (default: "
        "trials,bins,neurons, or bins,neurons)",
    )
    group.add_argument(
        "--spike-times",
        metavar="NAME",
        help="variable with spike times: a cell array with one cell per neuron (.mat), or a list "
        "of the times of all spikes (then --neuron names the neuron of each); in .csv the column",
    )
    group.add_argument(
        "--neuron",
        metavar="NAME",
        help="variable or column with the neuron of each spike (default: neuron, unit, cluster or "
        "spike_clusters)",
    )
    group.add_argument(
        "--time-unit",
        choices=("s", "ms"),
        help="unit of times in the file (default: s, and an error if they do not look like that)",
    )
    group.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of a .csv file that are not neurons; trial, time and bin are known",
    )


def _add_network(parser: Parser, *, keeps_model: bool = True) -> None:
    """Add options of the network and its training."""
    group = parser.add_argument_group("the network")
    group.add_argument(
        "--attention",
        choices=("spatiotemporal", "temporal"),
        help="spatiotemporal: relate bins and neurons (STNDT, the default); temporal: relate bins "
        "alone (NDT), which is faster",
    )
    group.add_argument(
        "--causal",
        action="store_true",
        help="rates of a bin depend on this bin and earlier ones alone, as in a closed loop",
    )
    group.add_argument(
        "--max-epochs",
        type=_epochs,
        default="auto",
        metavar="N",
        help="how long to train: a number of epochs, auto (default: by the size of the data) or "
        "long (half as long again)",
    )
    group.add_argument(
        "--window-bins",
        type=_whole,
        metavar="N",
        help="bins that the network sees at once (default: the longest trial, or 128 of a "
        "recording)",
    )
    group.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, or auto: a GPU if there is one (default)",
    )
    group.add_argument(
        "--threads", type=_whole, default=1, metavar="N", help="processor threads (default: 1)"
    )
    group.add_argument(
        "--random-state",
        type=_seed,
        default=0,
        metavar="SEED",
        help="seed; the same seed gives the same result (default: 0)",
    )
    if keeps_model:
        group.add_argument(
            "--model", metavar="FILE", help="save the trained network here, such as model.stndt"
        )
    group.add_argument(
        "--load",
        metavar="FILE",
        help="use this saved network and train none; for the same neurons, with bins and trials as "
        "in its training",
    )


def _add_common(parser: Parser) -> None:
    """Add options that every subcommand has."""
    group = parser.add_argument_group("messages and files")
    group.add_argument("--overwrite", action="store_true", help="replace files that exist")
    group.add_argument("--quiet", action="store_true", help="no progress")
    group.add_argument(
        "--verbose", action="store_true", help="more: each epoch, and warnings of other packages"
    )
    group.add_argument(
        "--traceback", action="store_true", help="after an error, show where it happened"
    )


def make_parser() -> Parser:
    """Make the parser of the command line."""
    parser = Parser(prog=PROGRAM, description=pages.ABOUT)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    rates = commands.add_parser(
        "rates",
        help="firing rates of a recording",
        description=pages.RATES,
        epilog=pages.RATES_MORE,
        usage=f"{PROGRAM} rates FILE --out FILE [options]",
    )
    rates.add_argument(
        "input", metavar="FILE", help="recording: .nwb, .npy, .npz, .mat, .csv, .tsv"
    )
    rates.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="file to write: .nwb, .npz or .mat"
    )
    _add_reading(rates)
    _add_network(rates)
    rates.add_argument(
        "--test-fraction",
        type=_fraction,
        default=0.2,
        metavar="X",
        help="fraction of the trials, or of the recording, to set aside for the score (default: "
        "0.2). 0: train on all, without a score",
    )
    _add_common(rates)

    decode = commands.add_parser(
        "decode",
        help="behaviour from rates",
        description=pages.DECODE,
        epilog=pages.DECODE_MORE,
        usage=f"{PROGRAM} decode FILE --target NAME [options]",
    )
    decode.add_argument("input", metavar="FILE", help="recording, as for rates")
    decode.add_argument(
        "--target",
        nargs="+",
        required=True,
        metavar="NAME",
        help="behaviour: time series (NWB), variables (.npz, .mat) or columns (.csv)",
    )
    decode.add_argument("-o", "--out", metavar="FILE", help="predictions: .nwb, .npz or .mat")
    decode.add_argument(
        "--folds",
        type=_folds,
        default=3,
        metavar="N",
        help="folds of cross-validation; each trains a network (default: 3)",
    )
    decode.add_argument(
        "--lag",
        type=_not_negative,
        nargs="+",
        metavar="SECONDS",
        help="by how much behaviour may lag behind the neurons; of several, the best in the "
        "training trials is used (default: 0 0.05 0.1 0.15)",
    )
    _add_reading(decode)
    _add_network(decode, keeps_model=False)
    _add_common(decode)

    benchmark = commands.add_parser(
        "benchmark",
        help="Neural Latents Benchmark",
        usage=f"{PROGRAM} benchmark NAME [FILE ...] [options]",
        description=pages.BENCHMARK,
        epilog=pages.BENCHMARK_MORE,
    )
    benchmark.add_argument(
        "name", metavar="NAME", help="data set, such as mc_maze_small; with _20 for bins of 20 ms"
    )
    benchmark.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="its files: .h5 or .nwb (default: those that were downloaded before)",
    )
    benchmark.add_argument("-o", "--out", metavar="FILE", help="submission to write, .h5")
    benchmark.add_argument(
        "--download", action="store_true", help="download missing files from the DANDI archive"
    )
    benchmark.add_argument(
        "--data-home", metavar="FOLDER", help="folder of downloads (default: scikit-learn's)"
    )
    _add_network(benchmark)
    _add_common(benchmark)
    return parser


def check_network(options: argparse.Namespace) -> None:
    """Raise an error if options contradict each other."""
    if options.load is None:
        return
    if getattr(options, "model", None) is not None:
        raise CommandError("--model saves a network that was trained, but --load trains none.")
    for name in ("attention", "causal", "window_bins"):
        if getattr(options, name):
            raise CommandError(
                f"--{name.replace('_', '-')} is for training; a network from --load keeps its own. "
                "Leave one of the two out."
            )
    if options.max_epochs != "auto":
        raise CommandError("--max-epochs is for training, but --load trains none.")
