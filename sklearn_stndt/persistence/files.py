"""Save an estimator to a file, load it, and read its model card."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sklearn_stndt._fingerprints import versions
from sklearn_stndt.persistence.archive import Archive, ArchiveWriter, ModelFileError, write_archive
from sklearn_stndt.persistence.cards import CARD, card
from sklearn_stndt.persistence.extras import have_extras
from sklearn_stndt.persistence.refusals import CannotSaveError
from sklearn_stndt.persistence.registry import NotRestoredError, can_be_in_a_file
from sklearn_stndt.persistence.values import MODEL, Decoder, Encoder


def save(estimator: Any, path: str | os.PathLike) -> None:
    """Save an estimator, fitted or not, to a file that is safe to pass on.

    The file is a zip archive of JSON (parameters, settings, fitted attributes, versions), of
    safetensors (weights and arrays) and of a model card (`MODEL_CARD.md`). Estimators of
    scikit-learn, such as the steps of a pipeline, are stored by skops. It holds no pickle and none
    of the data that the estimator was trained on, except what its fitted attributes repeat, such as
    `oob_rates_`.

    Parameters
    ----------
    estimator : estimator
        An estimator of this package, or a pipeline, search or other meta-estimator of scikit-learn
        with one inside.
    path : str or PathLike
        File to write, such as ``"model.stndt"``. A file that exists is replaced once the new one is
        complete.

    Raises
    ------
    CannotSaveError
        If a parameter or a fitted attribute, which the error names, cannot be saved without pickle:
        functions, callbacks, objects of classes of your own or of other packages.
    ImportError
        If safetensors or skops is needed and not installed (extra `save`).
    OSError
        If the file cannot be written. A file that was there before is kept.

    See Also
    --------
    load : Restore the estimator.
    model_card : Read what the model was trained on.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import sklearn_stndt
    >>> from sklearn_stndt.datasets import make_reaches
    >>> spikes = make_reaches(n_trials=20, random_state=0).spikes
    >>> network = sklearn_stndt.STNDTEstimator(max_epochs=2, random_state=0).fit(spikes)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.stndt")
    ...     sklearn_stndt.save(network, path)
    ...     again = sklearn_stndt.load(path)
    >>> np.array_equal(again.transform(spikes), network.transform(spikes))
    True
    """
    write_archive(Path(path), lambda writer: write_model(writer, estimator))


def load(path: str | os.PathLike, *, trusted: bool = False) -> Any:
    """Load an estimator that :func:`save` has written.

    Nothing in the file is executed, whoever has written it, and nothing outside of it is read.
    Rates, scores and predictions are the same to the last bit on the same device with the same
    versions. A network trained on a GPU is loaded on the CPU if this machine has no GPU.

    Parameters
    ----------
    path : str or PathLike
        The file.
    trusted : bool, default=False
        Also load decision trees of scikit-learn, such as those of a random forest. Their numbers
        are not checked when they are used, so that an altered file could crash Python. For files
        from people you trust.

    Returns
    -------
    estimator
        With the parameters, the fitted attributes and the output container
        (:meth:`~sklearn.base.TransformerMixin.set_output`) that it was saved with.

    Raises
    ------
    ModelFileError
        If the file is truncated, altered or no model, is of a newer version, or holds what is not
        restored. It is a ValueError.
    FileNotFoundError
        If there is no such file.
    ImportError
        If safetensors or skops is needed and not installed (extra `save`).
    """
    with Archive(Path(path)) as archive:
        return read_model(archive, trusted)


def model_card(path: str | os.PathLike) -> str:
    """Read the model card of a file: what the model was trained on, its scores and versions.

    It is read without loading the model, and needs no extra. Without Python:
    ``unzip -p model.stndt MODEL_CARD.md``.

    Parameters
    ----------
    path : str or PathLike
        A file that :func:`save` has written.

    Returns
    -------
    card : str
        Text in Markdown.

    Raises
    ------
    ModelFileError
        If the file is truncated, altered or no model.
    """
    with Archive(Path(path)) as archive:
        return archive.read(CARD).decode("utf-8", errors="replace")


def write_model(writer: ArchiveWriter, estimator: Any) -> dict[str, Any]:
    """Write an estimator and its model card into an open archive; return what the manifest says."""
    if not can_be_in_a_file(type(estimator)):
        raise CannotSaveError(
            f"Only estimators are saved, got {estimator!r}. Pass an estimator of sklearn_stndt, or "
            "a pipeline or search with one."
        )
    about = {
        "class": type(estimator).__name__,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    writer.add(CARD, card(estimator, about).encode())
    encoder = Encoder(writer)
    writer.add_json(MODEL, encoder.encode(estimator, type(estimator).__name__))
    encoder.finish()
    return about


def read_model(archive: Archive, trusted: bool = False) -> Any:
    """Restore the estimator in an open archive."""
    node = archive.read_json(MODEL)
    try:
        estimator = Decoder(archive, trusted).decode(node)
    except (ImportError, OSError, ModelFileError):
        raise
    except NotRestoredError as error:
        raise ModelFileError(f"{archive.name} cannot be loaded: {error}.") from error
    except Exception as error:  # anything may be in an altered file
        reason = str(error) if type(error) is ValueError else repr(error)
        raise archive.damaged(reason) from error
    if not can_be_in_a_file(type(estimator)):
        raise archive.damaged("it holds no estimator")
    return estimator


def can_be_saved(estimator: Any) -> bool:
    """Whether an estimator that is not fitted can be saved, and the extra is installed."""
    if not have_extras():
        return False
    try:
        Encoder(None).encode(estimator, type(estimator).__name__)
    except CannotSaveError:
        return False
    return True
