"""TensorRT 8.2 to 11: the inspector's layer file with what trtexec and TREx write beside it."""

from sdtrt.readers.formats.tensorrt.assign import join
from sdtrt.readers.formats.tensorrt.reader import read, sniff

__all__ = ["join", "read", "sniff"]
