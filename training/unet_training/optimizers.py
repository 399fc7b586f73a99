"""Optimizers that Keras does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any
"""A tensor of the backend that Keras runs on."""


class PartwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a lower learning rate for some variables: pretrained weights should move less than new ones.

    Weight decay follows the full learning rate for all variables; where ``rate`` is 0, those variables have none.

    Args:
        learning_rate: as Keras takes it.
        prefix: the paths of those variables begin with it.
        rate: their learning rate, as a share of ``learning_rate``.
        more: as ``keras.optimizers.AdamW`` takes it.
    """

    def __init__(self, learning_rate: Any, prefix: str, rate: float, **more: Any) -> None:
        super().__init__(learning_rate, **more)
        self._prefix = prefix
        self._rate = rate
        self._slow: list[bool] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        # By number: update_step is given the backend's variable, which may have no path.
        self._slow = [variable.path.startswith(self._prefix) for variable in variables]
        if self._rate == 0:
            still = [variable for variable in variables if variable.path.startswith(self._prefix)]
            self.exclude_from_weight_decay(var_list=still)
        super().build(variables)

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        if self._slow[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self._rate
        super().update_step(gradient, variable, learning_rate)
