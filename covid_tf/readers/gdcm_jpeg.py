"""Lossless JPEG by GDCM, without the way through a text.

GDCM's Python layer hands pixels over as a str that must be encoded back to bytes,
which takes as long as the decoding (docs/adr/0011).
"""

import ctypes

import gdcm
import numpy as np

from covid_tf import errors
from covid_tf.readers import images


def decode(stream: bytes, layout: images.PixelLayout) -> np.ndarray:
  """Decodes one image.

  Returns:
    uint16 [row, column]; bits above Bits Stored have no meaning.

  Raises:
    CTReadError: GDCM gives another number of bytes than the header promises.
  """
  codec = gdcm.JPEGCodec()
  codec.SetNumberOfDimensions(2)
  codec.SetDimensions((layout.columns, layout.rows, 1))
  codec.SetPixelFormat(gdcm.PixelFormat(
      1, 16, layout.bits_stored, layout.bits_stored - 1, int(layout.signed)))
  codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(
      gdcm.PhotometricInterpretation.MONOCHROME2))
  decoded = gdcm.DataElement()
  done = codec.Decode(_element(stream), decoded)
  value = decoded.GetByteValue() if done else None
  if value is None or str(value.GetLength()) != str(layout.frame_bytes):
    raise errors.CTReadError(
        'its pixels (JPEG lossless) cannot be decoded: they are damaged or '
        'truncated.')
  memory = (ctypes.c_char * layout.frame_bytes).from_address(
      int(value.GetVoidPointer()))
  words = np.frombuffer(memory, np.uint16).reshape(layout.rows, layout.columns)
  return words.copy()  # The memory goes with `decoded`.


def _element(stream: bytes) -> gdcm.DataElement:
  fragment = gdcm.Fragment()
  fragment.SetByteStringValue(stream)
  fragments = gdcm.SequenceOfFragments.New()
  fragments.AddFragment(fragment)
  element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
  element.SetValue(fragments.__ref__())
  return element
