"""Optimizers that Keras does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any
"""Of whichever backend Keras runs on."""


class PartwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a learning rate of its own for some variables: what is pretrained moves less than what is not.

    Weight decay has the full learning rate for all of them, unless ``rate`` is 0: then theirs is none.

    Args:
        learning_rate: as Keras takes it.
        prefix: of the paths of the variables with a rate of their own.
        rate: times ``learning_rate``: theirs.
        more: as ``keras.optimizers.AdamW`` takes it.
    """

    def __init__(self, learning_rate: Any, prefix: str, rate: float, **more: Any) -> None:
        super().__init__(learning_rate, **more)
        self._prefix, self._rate = prefix, rate
        self._slow: list[bool] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        # By number: what update_step gets is the backend's variable, which may have no path.
        self._slow = [variable.path.startswith(self._prefix) for variable in variables]
        if self._rate == 0:
            self.exclude_from_weight_decay(var_list=[v for v in variables if v.path.startswith(self._prefix)])
        super().build(variables)

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        if self._slow[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self._rate
        super().update_step(gradient, variable, learning_rate)
