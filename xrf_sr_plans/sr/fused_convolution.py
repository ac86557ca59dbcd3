"""Convolutions with what follows them: one pass over the features instead of two.

oneDNN, which does torch's convolutions on a CPU, can apply an activation to the result or add it
to other features while it is still in the processor's cache. torch has no public function for
that; its compiler calls the operators used here. Where they are missing or refuse, the same is
done in two steps. Imports torch: import this module lazily.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional


@cache
def _operators(dtype: torch.dtype) -> Any | None:
    """Return the operators if they work with values of a type, else None."""
    operators: Any = torch.ops.mkldnn
    maps, weight = torch.ones(1, 1, 3, 3, dtype=dtype), torch.ones(1, 1, 1, 1, dtype=dtype)
    found = Fused(operators)
    try:
        rectified = found.activated(-maps, weight, -maps[0, 0, 0, :1], 0, "leaky_relu", 0.5)
        found.add(maps, maps.clone(), weight, maps[0, 0, 0, :1], 0)
    except (AttributeError, RuntimeError, TypeError):
        return None
    fine = bool((rectified == -1).all() and (maps == 3).all())
    return operators if fine else None


class Fused:
    """Convolutions by the operators of torch's compiler; None: in two steps."""

    def __init__(self, operators: Any | None) -> None:
        self._operators = operators

    @classmethod
    def of(cls, dtype: torch.dtype) -> Fused:
        """Return those which work with values of a type on the CPU."""
        return cls(_operators(dtype))

    def activated(
        self,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        padding: int,
        name: Literal["leaky_relu", "relu", "sigmoid"],
        *parameters: float,
    ) -> Tensor:
        """Return an activation of the convolution of maps (1, feature, y, x)."""
        if self._operators is None:
            made = functional.conv2d(maps, weight, bias, padding=padding)
            if name == "leaky_relu":
                return functional.leaky_relu_(made, *parameters)
            return made.relu_() if name == "relu" else made.sigmoid_()
        places = [[padding] * 2, [1, 1], [1, 1], 1]
        return self._operators._convolution_pointwise(
            maps, weight, bias, *places, name, [*parameters], ""
        )

    def add(
        self, features: Tensor, maps: Tensor, weight: Tensor, bias: Tensor, padding: int
    ) -> None:
        """Add the convolution of maps (1, feature, y, x) to features, in place."""
        if self._operators is None:
            features.add_(functional.conv2d(maps, weight, bias, padding=padding))
            return
        places = [[padding] * 2, [1, 1], [1, 1], 1]
        self._operators._convolution_pointwise_.binary(
            features, maps, weight, bias, *places, "add", 1.0, None, [], None
        )
