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
