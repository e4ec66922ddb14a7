"""Functions of one real variable as callers write them, made safe: no array changed in place, no digit lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# irrational, of both signs, large and small, none of them special to an activation
_PROBES = np.array([-7.3891, -2.2360, -0.8414, -0.0173, 0.0291, 0.5772, 1.6180, 3.1731, 9.8696])


class Elementwise:
    """A function on float64 arrays: the argument is copied, the result checked and converted."""

    def __init__(self, function: Callable[[Any], Any], name: str) -> None:
        """Keep the function.

        Args:
            function: elementwise on float64 arrays, or on torch tensors.
            name: for messages.
        """
        self.function = function
        self.name = name
        self._torch = False  # whether it wants tensors, found out when numpy arrays are not taken

    def __call__(self, x: Array) -> Array:
        """The values at x, float64, in the shape of x.

        Raises:
            TypeError: the function takes no arrays, or returns something other than numbers in double precision.
            ValueError: it returns another shape.
        """
        x = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):  # overflow is left to the caller, who knows where it matters
            out = self._evaluate(x)
        if isinstance(out, np.ma.MaskedArray):
            raise TypeError(f"activation {self.name!r} returns a masked array; return plain numbers")
        out = np.asarray(out)
        if out.dtype.kind not in "fiub" or (out.dtype.kind == "f" and out.dtype.itemsize < 8):
            raise TypeError(f"activation {self.name!r} returns {out.dtype}, but the kernels need float64; "
                            "write it so that it keeps the precision of its argument")
        if out.shape not in (x.shape, ()):
            raise ValueError(f"activation {self.name!r} maps shape {x.shape} to {out.shape}; it must act elementwise")
        return np.array(np.broadcast_to(out, x.shape), dtype=np.float64)

    def _evaluate(self, x: Array) -> Any:
        if self._torch:
            return self._on_tensor(x)
        try:
            return self._plain(self.function(x.copy()))
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if "torch" in sys.modules:
                try:
                    out = self._on_tensor(x)
                except Exception:  # the first refusal tells more
                    out = None
                if out is not None and np.shape(out) == x.shape:
                    self._torch = True
                    return out
            raise TypeError(f"activation {self.name!r} does not take arrays ({error}); "
                            "write it with numpy functions, such as np.maximum instead of max") from error

    def _on_tensor(self, x: Array) -> Any:
        torch = sys.modules["torch"]
        with torch.no_grad():
            return self._plain(self.function(torch.tensor(x, dtype=torch.float64)))

    def _plain(self, out: Any) -> Any:
        torch = sys.modules.get("torch")
        return out.detach().cpu().numpy() if torch is not None and isinstance(out, torch.Tensor) else out

    def check(self) -> None:
        """Whether each value depends on its own argument alone.

        Raises:
            ValueError: it does not.
        """
        whole, part = self(_PROBES), self(_PROBES[1::2])
        if not np.allclose(whole[1::2], part, rtol=1e-12, atol=1e-300, equal_nan=True):
            raise ValueError(f"activation {self.name!r} does not act elementwise: its value at an entry changes with "
                             "the other entries or from call to call (a normalisation, softmax, or noise)")
