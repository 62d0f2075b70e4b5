"""Lossless JPEG by GDCM, without the way through a text.

GDCM's Python layer hands pixels over as a str that must be encoded back to bytes,
which takes as long as the decoding (docs/adr/0011).
"""

import contextlib
import ctypes
import platform
import threading

import gdcm
import numpy as np

from covid_tf import errors
from covid_tf.readers import images

_STDERR_LOCK = threading.Lock()


def decode(stream: bytes, layout: images.PixelLayout) -> np.ndarray:
  """Decodes one image.

  Returns:
    uint16 [row, column]; bits above Bits Stored have no meaning.

  Raises:
    CTReadError: GDCM gives another number of bytes than the header promises.
  """
  size = 2 * layout.rows * layout.columns
  codec = gdcm.JPEGCodec()
  codec.SetNumberOfDimensions(2)
  codec.SetDimensions((layout.columns, layout.rows, 1))
  codec.SetPixelFormat(gdcm.PixelFormat(
      1, 16, layout.bits_stored, layout.bits_stored - 1, int(layout.signed)))
  codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(
      gdcm.PhotometricInterpretation.MONOCHROME2))
  decoded = gdcm.DataElement()
  with _silent_c_library():
    done = codec.Decode(_element(stream), decoded)
  value = decoded.GetByteValue() if done else None
  if value is None or str(value.GetLength()) != str(size):
    raise errors.CTReadError(
        'its pixels (JPEG lossless) cannot be decoded: they are damaged or '
        'truncated.')
  memory = (ctypes.c_char * size).from_address(
      int(value.GetVoidPointer()))
  words = np.frombuffer(memory, np.uint16).reshape(layout.rows, layout.columns)
  return words.copy()  # The memory goes with `decoded`.


@contextlib.contextmanager
def _silent_c_library():
  """Keeps libjpeg's remarks on damaged data off the terminal: we refuse in words.

  They cannot be switched off in GDCM. GNU's C library has its standard error in a
  variable that may be set; what Python writes there does not pass through it.
  """
  if platform.libc_ver()[0] != 'glibc':
    yield
    return
  library = ctypes.CDLL(None)
  library.fopen.restype = ctypes.c_void_p
  stream = ctypes.c_void_p.in_dll(library, 'stderr')
  with _STDERR_LOCK:
    nowhere, before = library.fopen(b'/dev/null', b'w'), stream.value
    if nowhere:
      stream.value = nowhere
    try:
      yield
    finally:
      stream.value = before
      if nowhere:
        library.fclose(ctypes.c_void_p(nowhere))


def _element(stream: bytes) -> gdcm.DataElement:
  fragment = gdcm.Fragment()
  fragment.SetByteStringValue(stream)
  fragments = gdcm.SequenceOfFragments.New()
  fragments.AddFragment(fragment)
  element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
  element.SetValue(fragments.__ref__())
  return element
