"""Command lines of the benchmarks."""

import argparse
import ast


def new_parser(description):
    """Parser whose help is the docstring of a benchmark, as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_param(parser):
    """Add `--param NAME=VALUE`; `options.param` is then a list of pairs."""
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME=VALUE",
        help="constructor parameter of STNDTEstimator, repeatable",
    )


def parameter(text):
    """Parse `name=value`; a value that is not a Python literal is a string."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
