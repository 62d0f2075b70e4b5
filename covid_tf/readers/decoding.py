"""Stored values of an image, whatever its transfer syntax."""

from collections.abc import Iterator
import contextlib
import ctypes
import platform
import sys
import threading
from typing import Any

import gdcm
import numpy as np
from pydicom import encaps
from pydicom import pixels
from pydicom import uid
from pydicom.pixels.decoders import base as decoder_base

from covid_tf import errors
from covid_tf.readers import compressed
from covid_tf.readers import images
from covid_tf.readers import lossless_jpeg
from covid_tf.readers import pixels as pixels_lib

# Lossless JPEG by GDCM, without the way through a text.
#
# GDCM's Python layer hands pixels over as a str that must be encoded back to bytes,
# which takes as long as the decoding (docs/adr/0011).

_STDERR_LOCK = threading.Lock()


def decode_jpeg(stream: bytes, layout: images.PixelLayout) -> np.ndarray:
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
  codec.SetPixelFormat(
    gdcm.PixelFormat(
      1, 16, layout.bits_stored, layout.bits_stored - 1, int(layout.signed)
    )
  )
  codec.SetPhotometricInterpretation(
    gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
  )
  decoded = gdcm.DataElement()
  with silent_c_library():
    done = codec.Decode(_element(stream), decoded)
  value = decoded.GetByteValue() if done else None
  if value is None or str(value.GetLength()) != str(size):
    raise errors.CTReadError(
      'its pixels (JPEG lossless) cannot be decoded: they are damaged or truncated.'
    )
  memory = (ctypes.c_char * size).from_address(int(value.GetVoidPointer()))
  words = np.frombuffer(memoryview(memory), np.uint16).reshape(
    layout.rows, layout.columns
  )
  return words.copy()  # The memory goes with `decoded`.


@contextlib.contextmanager
def silent_c_library() -> Iterator[None]:
  """Keeps libjpeg's messages about damaged data off the terminal: ours are errors.

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


# The decoders of each family, the faster one first; all were measured to be right
# on signed values (docs/adr/0011).
_PLUGINS = (
  dict.fromkeys(pixels_lib.JPEG_LS, ('pyjpegls', 'gdcm'))
  | dict.fromkeys(pixels_lib.JPEG_2000, ('pylibjpeg', 'gdcm'))
  | {uid.RLELossless: ('pydicom',)}
)


class PixelReader:
  """Reads images one by one; keeps the compressed frames of the last file only."""

  def __init__(self) -> None:
    self._layout: images.PixelLayout | None = None
    self._frames: list[bytes] = []

  def read_into(self, image: images.Image, words: np.ndarray) -> np.ndarray:
    """The words of an image as stored.

    Bits above Bits Stored are as they are in the file.

    Args:
      image: what to read.
      words: uint16 [row, column], to be filled.

    Returns:
      `words`; or uint32 [row, column] where the words of the file have 32 bits.

    Raises:
      CTReadError: the pixels are truncated, damaged or contradict the header.
    """
    layout = image.require_pixels()
    if layout.syntax in pixels_lib.COMPRESSED:
      if layout is not self._layout:
        self._frames = _compressed_frames(layout)
        self._layout = layout
      decoded = _decoded(self._frames[image.frame], layout)
      if decoded.dtype != words.dtype:
        return decoded
      words[...] = decoded
      return words
    if layout.bits_allocated == 32:
      words = np.empty(words.shape, np.uint32)
    offset = layout.offset + image.frame * layout.frame_bytes
    target = words.data.cast('B')
    if not layout.source.read_into(offset, target):
      raise errors.CTReadError(
        f'truncated: {layout.frame_bytes} bytes of pixels are required, fewer '
        'were found.'
      )
    if layout.little_endian != (sys.byteorder == 'little'):
      words.byteswap(inplace=True)
    return words


def _compressed_frames(layout: images.PixelLayout) -> list[bytes]:
  size = layout.source.size
  assert size is not None  # But of deflated data sets, whose pixels are native.
  data = layout.source.read(layout.offset, size)
  return compressed.frames_of(data, layout.frames, layout.frame_table)


def _decoded(stream: bytes, layout: images.PixelLayout) -> np.ndarray:
  """Words of one compressed image, uint16 (RLE: or uint32) [row, column]."""
  stream = compressed.coded_image(stream, layout)
  if layout.syntax in pixels_lib.JPEG_LOSSLESS:
    lossless_jpeg.require_lossless(stream, layout.columns)
    words = decode_jpeg(stream, layout)
    lossless_jpeg.require_whole(stream, words)
  else:
    words = _decoded_by_pydicom(stream, layout)
  if layout.syntax != uid.RLELossless:  # It keeps what native words hold besides.
    _require_bits(words, layout)
  return words


def _require_bits(words: np.ndarray, layout: images.PixelLayout) -> None:
  """The header's Bits Stored must hold the values of the stream."""
  values = words.view(np.int16) if layout.signed else words
  lowest, highest = int(values.min()), int(values.max())
  if highest >> layout.bits_stored or lowest < -1 << (layout.bits_stored - 1):
    raise errors.CTReadError(
      f'its header says {layout.bits_stored} bits stored, its compressed image '
      f'holds {lowest} to {highest}.'
    )


def _decoded_by_pydicom(stream: bytes, layout: images.PixelLayout) -> np.ndarray:
  decoder = pixels.get_decoder(layout.syntax)
  plugin = _plugin(decoder)
  allocated = layout.bits_allocated if layout.syntax == uid.RLELossless else 16
  # pydicom annotates each option with the type of all of them.
  options: dict[str, Any] = {
    'rows': layout.rows,
    'columns': layout.columns,
    'samples_per_pixel': 1,
    'number_of_frames': 1,
    'photometric_interpretation': 'MONOCHROME2',
    'bits_allocated': allocated,
    'bits_stored': layout.bits_stored,
    'pixel_keyword': 'PixelData',
    'pixel_representation': int(layout.signed),
  }
  attempts = [stream]
  if layout.syntax in pixels_lib.JPEG_LS:
    # CharLS refuses zero bytes before the end marker. Whether they are padding only
    # its decoding shows, so they are left out where it has failed.
    attempts.extend(compressed.without_zeros_before_end(stream))
  for attempt in attempts:
    try:
      words, _ = decoder.as_array(
        encaps.encapsulate([attempt], has_bot=False),
        raw=True,
        index=0,
        decoding_plugin=plugin,
        **options,
      )
      break
    except Exception:  # Each decoder raises its own kind for damaged bytes.
      continue
  else:
    raise errors.CTReadError(
      f'its pixels ({uid.UID(layout.syntax).name}) cannot be decoded: they are '
      'damaged or truncated.'
    )
  if words.shape != (layout.rows, layout.columns) or (
    8 * words.dtype.itemsize != allocated
  ):
    raise errors.CTReadError(
      f'{layout.rows} x {layout.columns} pixels of {allocated} bits are required, '
      f'its compressed image has {words.shape} of {8 * words.dtype.itemsize}.'
    )
  return words.view(np.uint16 if allocated == 16 else np.uint32)


def _plugin(decoder: decoder_base.Decoder) -> str:
  for plugin in _PLUGINS[decoder.UID]:
    if plugin in decoder.available_plugins:
      return plugin
  raise errors.CTReadError(
    f'no decoder for {decoder.UID.name} is installed; install '
    f'{" or ".join(_PLUGINS[decoder.UID])}.'
  )
