"""``benchmark``: a data set of the Neural Latents Benchmark, from its files to a submission."""

import argparse
from pathlib import Path

from sklearn_stndt.cli.messages import CommandError, Reporter
from sklearn_stndt.cli.network import fit, load, make_network, save
from sklearn_stndt.cli.options import check_network
from sklearn_stndt.cli.outputs import check_distinct, check_output
from sklearn_stndt.datasets import (
    evaluate,
    fetch_nlb,
    load_nlb,
    make_submission,
    save_submission,
)


def run(options: argparse.Namespace, reporter: Reporter) -> None:
    """Load the files, train or load a network, write the submission, and score it."""
    check_network(options)
    out = check_output(options.out, (".h5",), overwrite=options.overwrite)
    model = check_output(options.model, (), overwrite=options.overwrite)
    files = [Path(file).expanduser() for file in options.files]
    check_distinct(*files, out, model)
    if not files:
        reporter.say(f"looking for {options.name} in {options.data_home or 'the data folder'}")
        try:
            files = fetch_nlb(
                options.name, data_home=options.data_home, download_if_missing=options.download
            )
        except OSError as error:
            if options.download:
                raise
            raise CommandError(
                f"The files of {options.name} are not here ({error}) Name them, or pass --download "
                "to get them from the DANDI archive."
            ) from error
    data = load_nlb(files, name=options.name)
    if data.X_train is None or data.X_eval is None:
        raise CommandError(
            "A submission needs training and evaluation trials, but "
            f"{', '.join(map(str, files))} lack one of them. Name the benchmark's input files too."
        )
    n_trials, n_bins, n_neurons = data.X_train.shape
    reporter.say(
        f"{data.name}: {n_trials} training trials of {n_bins} bins of {1000 * data.bin_width:g} "
        f"ms, {n_neurons} neurons, {len(data.heldout)} of them held out; {len(data.X_eval)} "
        "evaluation trials"
    )
    if options.load is not None:
        network = load(options.load, data.X_train, data.bin_width)
    else:
        network = make_network(
            options, reporter, heldout_neurons=data.heldout, forecast_bins=data.n_forward
        )
        reporter.say("training")
        fit(network, data.X_train)
    if model is not None:
        save(network, model, bin_width=data.bin_width)
        reporter.say(f"network saved: {model}")
    submission = make_submission(network, data)
    if out is not None:
        save_submission(submission, out, overwrite=options.overwrite)
    if data.target:
        for scores in evaluate(data, submission):
            for split, values in scores.items():
                print(split)
                for name, value in values.items():
                    print(f"  {name:20}{value:8.4f}")
    else:
        reporter.say("the files do not hold what is to be predicted, so there is no score")
    if out is not None:
        print(f"submission: {out}")
