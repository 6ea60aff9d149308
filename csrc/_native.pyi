"""Types of the C++ extension module (bindings.cpp)."""

import numpy as np
from numpy.typing import NDArray

def pack_best_fit(
    lengths: NDArray[np.int32] | NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int32], int]:
    """Best-fit decreasing packing, see ``engine.packing.pack_best_fit``.

    ``lengths`` [n] int32 or int64, each in [1, capacity]; gives ``bin_of`` [n] and the number of
    bins. The GIL is released meanwhile: no other thread may write to ``lengths``.

    Raises:
        ValueError: a length outside [1, capacity] (naming the first such index), a capacity
            outside [1, 2**20], another type or number of dimensions.
    """

class Assignment:
    """Rows to columns by auction or augmenting paths over lists, see csrc/matching.hpp.

    ``dataprep.matching`` is the way to use it. The constructor keeps its arrays, it does not copy.
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        columns: NDArray[np.float32],
        groups: NDArray[np.int32],
        limits: list[int],
        reject: float,
    ) -> None:
        """``rows`` [n, d], ``columns`` [m, d]; ``groups`` [m] or empty: indices into ``limits``.

        Raises:
            ValueError: shapes or indices that do not fit.
        """

    def begin(self, rows: NDArray[np.int32], keep: int) -> None: ...
    def collect(self, first: int, tile: NDArray[np.float32], column: int, width: int) -> None: ...
    def collect_listed(
        self, first: int, worth: NDArray[np.float32], column: NDArray[np.int64]
    ) -> None: ...
    def finish(self, first: int, count: int) -> None: ...
    def give(
        self,
        starts: NDArray[np.int64],
        columns: NDArray[np.int32],
        values: NDArray[np.float32],
    ) -> None: ...
    def bid(self, epsilon: float, most: int) -> int: ...
    def augment(self, most: int) -> int: ...
    def parked(self) -> NDArray[np.int32]: ...
    def stuck(self) -> NDArray[np.int32]: ...
    def waiting(self) -> int: ...
    def total(self) -> float: ...
    def bound(self) -> float: ...
    def prices(self) -> NDArray[np.float64]: ...
    def levels(self) -> NDArray[np.float64]: ...
    def column_of(self) -> NDArray[np.int32]: ...
    def similarity(self) -> NDArray[np.float64]: ...
    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def set_state(self, state: dict[str, NDArray[np.generic]]) -> None: ...
