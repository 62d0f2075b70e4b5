"""What the reader keeps of a header: one record an image, files or frames alike."""

import dataclasses
import math

import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import privacy
from covid_tf.readers import sources


@dataclasses.dataclass(frozen=True, slots=True)
class PixelLayout:
  """Where and how the pixels of an image are stored.

  Attributes:
    source: where its bytes are read from.
    offset: byte at which the value of Pixel Data starts in the source.
    length: bytes of Pixel Data; None if it is encapsulated (undefined length).
    syntax: transfer syntax UID; '' for a bare uncompressed data set.
    little_endian: byte order of uncompressed pixels.
    rows, columns: size of an image.
    frames: images in the source.
    bits_stored: from 9 on, at the low end of the allocated bits.
    signed: two's complement.
    frame_table: bytes of Extended Offset Table and its Lengths, or None.
    bits_allocated: 16 or 32.
    overlay_bits: mask of the bits that hold overlays, above those stored.
  """

  source: sources.Source
  offset: int
  length: int | None
  syntax: str
  little_endian: bool
  rows: int
  columns: int
  frames: int
  bits_stored: int
  signed: bool
  frame_table: tuple[bytes, bytes] | None = None
  bits_allocated: int = 16
  overlay_bits: int = 0

  @property
  def frame_bytes(self) -> int:
    """Bytes of one uncompressed image."""
    return self.bits_allocated // 8 * self.rows * self.columns


@dataclasses.dataclass(frozen=True, slots=True)
class Plane:
  """Where an image lies in the patient.

  Attributes:
    position: LPS millimetres of the centre of the first voxel (x, y, z).
    row_direction: unit vector of growing column index.
    column_direction: unit vector of growing row index.
    spacing_mm: between rows, between columns.
  """

  position: tuple[float, float, float]
  row_direction: tuple[float, float, float]
  column_direction: tuple[float, float, float]
  spacing_mm: tuple[float, float]

  @property
  def normal(self) -> np.ndarray:
    """Unit vector across the plane to the patient's head, the way slices grow.

    The side of row direction x column direction says nothing of the patient:
    mirrored columns turn it to the feet.
    """
    # Plain Python: np.cross on three numbers takes ten times as long, and a
    # folder may hold thousands of images.
    (a, b, c), (d, e, f) = self.row_direction, self.column_direction
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.sqrt(x * x + y * y + z * z)
    if 2 * z < -length:  # Never by the noise of a z near 0: no axial plane's.
      length = -length
    return np.array((x / length, y / length, z / length))


@dataclasses.dataclass(frozen=True, slots=True)
class Rescale:
  """From stored values to Hounsfield units.

  Attributes:
    slope, intercept: HU = stored * slope + intercept.
    padding: range of stored words that stand for no measurement, or None.
    unit: Rescale Type where it does not say HU, printable; '' where it does or is
      missing, which says HU too.
  """

  slope: float
  intercept: float
  padding: tuple[int, int] | None = None
  unit: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class ConcatenationPart:
  """Which of the files that one multi-frame image was split into (PS3.3 C.7.6.16).

  Attributes:
    uid: Concatenation UID.
    number: of this file, from 1.
    total: files in all; 0 if the header does not say.
  """

  uid: str
  number: int
  total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
  """One image of a study: a file, or a frame of an enhanced one.

  Attributes:
    name: file name (and frame) for messages.
    frame: index of the image in its source, from 0.
    study_uid, series_uid, image_uid, frame_of_reference: UIDs, '' if missing.
    patient: digests of who it is.
    sop_class: SOP Class UID, '' if missing.
    modality: 'CT', …, '' if missing.
    image_type: values of Image Type (and Frame Type), upper case.
    kernel: convolution kernel, printable.
    thickness_mm: nominal slice thickness, only shown.
    acquisition: Acquisition Number, '' if missing.
    date: 'YYYY-MM-DD' of acquisition, or None.
    plane, rescale, pixels: None where a problem says why.
    problems: what makes this image unusable; () for a good one.
    is_picture: colours or 8 bits, as screen saves have.
    marks: keyword to value of the fields of `elements.MARKS` that are there, printable.
    description: Series Description, printable, without what names the patient.
    settings: of scanner, tube and contrast.
    notes: oddities that change neither a millimetre nor a HU.
    part: of a concatenation that its file is; None of a file that is a whole.
  """

  name: str
  frame: int
  study_uid: str
  series_uid: str
  image_uid: str
  frame_of_reference: str
  patient: privacy.PatientDigests = dataclasses.field(repr=False)
  sop_class: str
  modality: str
  image_type: tuple[str, ...]
  kernel: str
  thickness_mm: float | None
  acquisition: str
  date: str | None
  plane: Plane | None
  rescale: Rescale | None
  pixels: PixelLayout | None
  problems: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  is_picture: bool = False
  marks: dict[str, str] = dataclasses.field(default_factory=dict)
  description: str = ''
  settings: volume.Acquisition = volume.Acquisition()
  part: ConcatenationPart | None = None

  def require_plane(self) -> Plane:
    """Where it lies; CTReadError if that is unknown."""
    if self.plane is None:
      raise self._unusable()
    return self.plane

  def require_rescale(self) -> Rescale:
    """Its way to Hounsfield units; CTReadError if that is unknown."""
    if self.rescale is None:
      raise self._unusable()
    return self.rescale

  def require_pixels(self) -> PixelLayout:
    """Where its pixels are stored; CTReadError if that is unknown."""
    if self.pixels is None:
      raise self._unusable()
    return self.pixels

  def _unusable(self) -> errors.CTReadError:
    return errors.CTReadError(f'{self.name}: {"; ".join(self.problems)}.')


@dataclasses.dataclass(frozen=True)
class BrokenFile:
  """A DICOM file that is no complete image, so that a slice may be missing.

  Attributes:
    name: file name for messages.
    series_uid: of the series it belongs to; '' if that cannot be read.
    reason: what is wrong with it.
    remedy: what to do where copying it again is of no use, else ''.
  """

  name: str
  series_uid: str
  reason: str
  remedy: str = ''
