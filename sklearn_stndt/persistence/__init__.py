"""Save and load fitted estimators without pickle, with a model card."""

from sklearn_stndt.persistence.archive import ModelFileError
from sklearn_stndt.persistence.files import load, model_card, save
from sklearn_stndt.persistence.refusals import CannotSaveError

__all__ = ["CannotSaveError", "ModelFileError", "load", "model_card", "save"]
