"""Connected parts of a label map: what stands for instances where nobody has told them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def connected_parts(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """A number for each connected part of each label, from 1 on, label by label; pixels meet at their edges.

    Args:
        labels: ids [h, w], not negative.

    Returns:
        int32 [h, w].
    """
    parts = np.zeros(labels.shape, np.int32)
    count = 0
    # A label is searched where it is: few reach over the whole map.
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32) + 1)):
        if box is not None:
            own = np.empty(labels[box].shape, np.int32)
            ndimage.label(labels[box] == label, output=own)
            parts[box] += np.where(own, own + count, 0)
            count += int(own.max())
    return parts
