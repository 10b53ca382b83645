"""What is in the file of a model, read without running any of it.

A model of SchNetPack is stored as a pickle, and to unpickle is to import and call whatever the file names. Here all classes
and functions that it names are replaced by `StoredObject`, which keeps the attributes it is given and does nothing else, so
that a config can be looked at before the model that it names is trusted.
"""

import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

__all__ = ["StoredObject", "StoredTensor", "read_stored"]

#: storages that a number can be read from -> how `struct` calls their elements
_ELEMENTS = {"HalfStorage": "e", "FloatStorage": "f", "DoubleStorage": "d", "IntStorage": "i", "LongStorage": "q"}


class StoredObject:
    """An object in a pickle, of whatever class: its attributes; of a module also its parameters, buffers and submodules."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "StoredObject":
        """What a call would give, as a pickle makes it to find a method of a class."""
        return StoredObject()

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes, if the object was stored with its own."""
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __getattr__(self, name: str) -> Any:
        """What `torch.nn.Module` finds below this name."""
        for kind in ("_parameters", "_buffers", "_modules"):
            inside = self.__dict__.get(kind)
            if isinstance(inside, dict) and name in inside:
                return inside[name]
        raise AttributeError(name)

    def __iter__(self) -> Iterator[Any]:
        """The submodules, as of a `torch.nn.ModuleList`."""
        return iter(list(self._modules.values()))

    def _leave_out(self, *args: Any) -> None:
        """Elements of containers of unknown classes."""

    __setitem__ = append = extend = add = _leave_out


class _Storage(NamedTuple):
    """Where the elements of a tensor are: archive, name of the type of storage, and of the storage in the archive."""

    file: Path
    kind: str
    key: str


class StoredTensor(StoredObject):
    """A tensor in a pickle; the number in it is read when it is asked for.

    Args:
        storage: where its elements are.
        offset: where in the storage the tensor begins, in elements.
        size: shape of the tensor.
        ignored: what else torch stores of a tensor.
    """

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], *ignored: Any) -> None:
        self._storage, self._offset, self._size = storage, offset, size

    def __float__(self) -> float:
        """The value of a tensor with one element.

        Raises:
            TypeError: if it has more elements, or elements that are no such numbers.
        """
        if not isinstance(self._storage, _Storage) or math.prod(self._size) != 1 or self._storage.kind not in _ELEMENTS:
            raise TypeError("a tensor that is not a single number has no value")
        file, kind, key = self._storage
        with zipfile.ZipFile(file) as archive:
            root = _root(archive)
            big = f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") == b"big"
            element = (">" if big else "<") + _ELEMENTS[kind]
            data = archive.read(f"{root}/data/{key}")
        return float(struct.unpack_from(element, data, self._offset * struct.calcsize(element))[0])


class _StoredParameter(StoredObject):
    """A parameter in a pickle is the tensor in it."""

    def __new__(cls, value: Any, *ignored: Any) -> Any:
        return value


class _Unpickler(pickle.Unpickler):
    """Makes a `StoredObject` of everything that is no plain Python data."""

    #: what else may be called: containers of plain data, and what stands for tensors
    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_parameter"): _StoredParameter,
        ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    }

    def __init__(self, data: bytes, file: Path) -> None:
        super().__init__(BytesIO(data))
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """Never the class or function of that name, but what stands for it here; of a type of storage the name."""
        if module == "torch" and name.endswith("Storage"):
            return name
        return self._KNOWN.get((module, name), StoredObject)

    def persistent_load(self, pid: Any) -> _Storage:
        """Where a storage is."""
        _, kind, key, *_ = pid
        return _Storage(self._file, kind, key)


def read_stored(file: Path) -> Any:
    """Read what a file of `torch.save` holds, without importing or calling anything that it names.

    Args:
        file: a file of PyTorch 1.6 or later, which is a zip archive.

    Returns:
        Plain Python data as they are, `StoredTensor` for tensors and `StoredObject` for all else.

    Raises:
        Exception: of any class, if it is no such file or not understood; it may be made up to do harm.
    """
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(f"{_root(archive)}/data.pkl")
        if member.compress_type != zipfile.ZIP_STORED:  # torch does not compress; it could unfold to gigabytes
            raise ValueError(f"'{file}' is compressed, which no file of torch.save is")
        data = archive.read(member)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if "PUT" in opcode.name and argument is not None and int(argument) > number:  # memory is asked for up to it
            raise ValueError(f"'{file}' counts {argument} objects, and has {number}")
    return _Unpickler(data, file).load()


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that everything is in."""
    return archive.namelist()[0].partition("/")[0]
