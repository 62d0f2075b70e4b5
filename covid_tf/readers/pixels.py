"""Stored pixels: their layout, checked first, and the way to Hounsfield units."""

from pydicom import uid

from covid_tf.readers import dataset
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import images

NATIVE = frozenset(
  (
    '',
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
  )
)
JPEG_LOSSLESS = frozenset((uid.JPEGLossless, uid.JPEGLosslessSV1))
JPEG_LS = frozenset((uid.JPEGLSLossless, uid.JPEGLSNearLossless))
JPEG_2000 = frozenset(
  (
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
  )
)
COMPRESSED: frozenset[str] = JPEG_LOSSLESS | JPEG_LS | JPEG_2000 | {uid.RLELossless}

# Today's largest CT matrix is 2048; a header that says more wants our memory.
_LARGEST_SIDE = 4096
_FEWEST_BITS = 9  # 8 bits are a picture of a CT, not its Hounsfield units.


def layout_of(data_set: dataset.DataSet, frames: int) -> images.PixelLayout:
  """The layout of a file's pixels.

  Args:
    data_set: the header.
    frames: images that its functional groups describe, 1 without them.

  Raises:
    ElementError: not grey pixels of 9 bits or more, absurd or contradictory, a transfer
      syntax that is not read, or too few bytes.
  """
  elements = data_set.elements
  if data_set.pixel_tag != elements_lib.PIXEL_DATA:
    raise elements_lib.ElementError(
      'integer pixels are required, found floating point ones'
    )
  rows, columns = (
    elements_lib.unsigned(elements, tag)
    for tag in (elements_lib.ROWS, elements_lib.COLUMNS)
  )
  if not (2 <= rows <= _LARGEST_SIDE and 2 <= columns <= _LARGEST_SIDE):
    raise elements_lib.ElementError(
      f'2 to {_LARGEST_SIDE} rows and columns are required, found {rows} x {columns}'
    )
  _require_one_value(elements)
  _require_frames(elements, frames)
  allocated, stored = _bits(elements)
  layout = images.PixelLayout(
    source=data_set.source,
    offset=data_set.pixel_offset,
    length=data_set.pixel_length,
    syntax=data_set.syntax,
    little_endian=data_set.little_endian,
    rows=rows,
    columns=columns,
    frames=frames,
    bits_stored=stored,
    signed=_signed(elements),
    frame_table=_frame_table(elements),
    bits_allocated=allocated,
    overlay_bits=_overlay_bits(elements, stored, allocated),
  )
  _require_readable(layout)
  return layout


def _require_one_value(elements: elements_lib.Elements) -> None:
  samples = elements_lib.unsigned(elements, elements_lib.SAMPLES_PER_PIXEL, default=1)
  if samples != 1:
    raise elements_lib.ElementError(
      f'one grey value a pixel is required, found {samples} (colour)'
    )


def _require_frames(elements: elements_lib.Elements, frames: int) -> None:
  if frames == 1 and not elements_lib.raw(elements, elements_lib.NUMBER_OF_FRAMES):
    return
  (count,) = elements_lib.decimals(elements, elements_lib.NUMBER_OF_FRAMES, 1)
  if count != frames:
    raise elements_lib.ElementError(
      f'Number of Frames is {count:g}, but its geometry is given for {frames}'
    )


def _bits(elements: elements_lib.Elements) -> tuple[int, int]:
  """Bits allocated and stored."""
  allocated = elements_lib.unsigned(elements, elements_lib.BITS_ALLOCATED)
  stored = elements_lib.unsigned(elements, elements_lib.BITS_STORED)
  if allocated not in (16, 32) or not _FEWEST_BITS <= stored <= allocated:
    raise elements_lib.ElementError(
      f'{_FEWEST_BITS} to 16 bits stored in 16 allocated (or up to 32 in 32) are '
      f'required, found {stored} in {allocated}'
    )
  high = elements_lib.unsigned(elements, elements_lib.HIGH_BIT, default=stored - 1)
  if high != stored - 1:
    raise elements_lib.ElementError(
      f'High Bit must be Bits Stored - 1 = {stored - 1}, found {high}'
    )
  return allocated, stored


def _signed(elements: elements_lib.Elements) -> bool:
  representation = elements_lib.unsigned(elements, elements_lib.PIXEL_REPRESENTATION)
  if representation > 1:
    raise elements_lib.ElementError(
      f'Pixel Representation must be 0 or 1, found {representation}'
    )
  return representation == 1


def _overlay_bits(elements: elements_lib.Elements, stored: int, allocated: int) -> int:
  """Mask of the bits that old writers kept overlays in (PS3.5 section 8.1.2)."""
  mask = 0
  for tag in elements_lib.OVERLAY_BIT_POSITIONS:
    bit = elements_lib.unsigned(elements, tag, default=0)
    if stored <= bit < allocated:
      mask |= 1 << bit
  return mask


def _frame_table(elements: elements_lib.Elements) -> tuple[bytes, bytes] | None:
  offsets = elements_lib.raw(elements, elements_lib.EXTENDED_OFFSET_TABLE)
  lengths = elements_lib.raw(elements, elements_lib.EXTENDED_OFFSET_TABLE_LENGTHS)
  return (offsets, lengths) if offsets and lengths else None


def _require_readable(layout: images.PixelLayout) -> None:
  """The syntax is known, and as many bytes as the header promises are there."""
  if layout.syntax in COMPRESSED:
    if layout.length is not None:
      raise elements_lib.ElementError(
        'its transfer syntax says compressed, its pixels are not encapsulated'
      )
    if layout.bits_stored > 16 and layout.syntax != uid.RLELossless:
      raise elements_lib.ElementError(
        f'up to 16 bits stored are read from {uid.UID(layout.syntax).name}, found '
        f'{layout.bits_stored}'
      )
    return
  if layout.syntax not in NATIVE:
    name = uid.UID(layout.syntax).name if layout.syntax.startswith('1.2.') else '?'
    raise elements_lib.ElementError(
      f'the transfer syntax {elements_lib.printable(name)} '
      f'({elements_lib.printable(layout.syntax)}) is not read; convert it to '
      'Explicit VR Little Endian'
    )
  if layout.length is None:
    raise elements_lib.ElementError(
      'its pixels are encapsulated, its transfer syntax says uncompressed'
    )
  needed = layout.frame_bytes * layout.frames
  left = layout.length
  if layout.source.size is not None:
    left = min(left, layout.source.size - layout.offset)
  if left < needed:
    raise elements_lib.ElementError(
      f'truncated: {needed} bytes of pixels are required, found {max(left, 0)}'
    )
