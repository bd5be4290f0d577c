"""Names of parameters: an error for an unknown name suggests the nearest one."""

import functools
import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Self, TypeVar, cast

from sklearn.base import BaseEstimator

Init = TypeVar("Init", bound=Callable[..., None])

# names that other libraries have for what is a parameter here
_ELSEWHERE = {
    "embed_dim": "d_model",
    "hidden_size": "d_model",
    "learning_rate": "lr",
    "max_iter": "max_epochs",
    "patience": "n_iter_no_change",
    "seed": "random_state",
    "val_fraction": "validation_fraction",
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Ask whether the known name nearest to an unknown one was meant; "" if none is near."""
    known = list(known)
    elsewhere = _ELSEWHERE.get(name)
    near = [elsewhere] if elsewhere in known else get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def suggests_names(init: Init) -> Init:
    """Decorate the constructor of an estimator, whose signature remains.

    An unknown keyword is a TypeError, as in any constructor, that suggests the nearest name. So is
    an argument without a name where there must be one.
    """
    parameters = list(inspect.signature(init).parameters.values())[1:]  # without self
    names = [parameter.name for parameter in parameters]
    n_positional = sum(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in parameters)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **params: Any) -> None:
        cls = type(self).__name__
        if len(args) > n_positional:
            raise TypeError(
                f"{cls} takes its parameters by name, got {len(args)} without a name. Write "
                f"{cls}({names[n_positional]}=...). Data are passed to fit."
            )
        for name in params:
            if name not in names:
                raise TypeError(
                    f"{cls}.__init__() got an unexpected keyword argument {name!r}."
                    f"{suggestion(name, names)} {cls}().get_params() lists all parameters."
                )
        init(self, *args, **params)

    return cast(Init, checked)


class NamedParameters(BaseEstimator):
    """Base class of estimators whose `set_params` suggests the nearest name for an unknown one."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of estimators inside too, as ``step__name=value``.

        Parameters
        ----------
        **params
            New values.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If there is no parameter of that name.
        """
        names = self._get_param_names()
        for name in (key.partition("__")[0] for key in params):
            if name not in names:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self!r}.{suggestion(name, names)} "
                    f"Valid parameters are: {names}."
                )
        return super().set_params(**params)
