"""Files of partitions: which frames a run trains on, validates on and tests on."""

import zipfile
from pathlib import Path

import numpy as np

from spk_dt.folders.damage import reading

__all__ = ["read_split"]

#: an archive that unpacks to more bytes than this, and to more than this times its own size, is none of frames
_BYTES, _TIMES = 2**26, 200


def read_split(file: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a split file, ours or SchNetPack's.

    Args:
        file: ``split.npz``.

    Raises:
        ValueError: if it is damaged, holds Python objects, or would unpack to far more than frames have.
    """
    file = Path(file)
    with reading(file, "split file", "Remove the file to make a new split."):
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max(_BYTES, _TIMES * file.stat().st_size):
            raise ValueError(f"it would unpack to {size} bytes")
        with np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content}
        for key, value in arrays.items():
            if key.endswith("_idx") and (value.ndim != 1 or value.dtype.kind not in "iuf" or (value < 0).any()):
                raise ValueError(f"its {key} are no numbers of frames")
        return arrays
