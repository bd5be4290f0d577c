"""Read the command line, run a subcommand, and turn errors into one line."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from sklearn_stndt.cli.messages import Reporter, describe
from sklearn_stndt.cli.options import PROGRAM, make_parser

FAILED, INTERRUPTED = 2, 130  # exit statuses


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; results go to stdout, all else to stderr.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments after the name of the program. None: those of this process.

    Returns
    -------
    status : int
        0, 2 after an error, 130 after an interruption.
    """
    parser = make_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    if options.version:
        from sklearn_stndt import __version__

        print(f"sklearn_stndt {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    reporter = Reporter(quiet=options.quiet, verbose=options.verbose)
    try:
        with reporter.reporting_warnings():
            # each subcommand imports what it needs, so that --help does not wait
            importlib.import_module(f"sklearn_stndt.cli.{options.command}").run(options, reporter)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted; no unfinished file is left", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # stdout was closed, as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        print(f"{PROGRAM} {options.command}: error: {describe(error)}", file=sys.stderr)
        return FAILED
    return 0
