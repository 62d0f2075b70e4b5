"""The CT volume: Hounsfield units with their place in the patient."""

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
  import nibabel
  import SimpleITK

AIR_HU = -1024  # Lowest of a 12-bit CT with intercept -1024; padding becomes this.
# Places of DICOM (LPS) to places of NIfTI (RAS), and back.
LPS_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
# Units of length as NIfTI names them; a file that names none means millimetres.
MILLIMETRES = {'mm': 1.0, 'unknown': 1.0, 'micron': 1e-3, 'meter': 1e3}


@dataclasses.dataclass(frozen=True)
class StoredGrid:
  """How a file or an image stores a volume, so that results can be stored the same way.

  Attributes:
    shape: of the file's array, with trailing axes of one.
    axes: which of the file's axes i, j, k (0, 1, 2) are slices, rows and columns.
    slices_reversed: the file's slices run to the feet.
    affine: float64 [4, 4], (i, j, k, 1) to NIfTI's RAS in `unit`, as in the file.
    unit: of length, as NIfTI names it: 'mm', 'micron', 'meter' or 'unknown'.
  """

  shape: tuple[int, ...]
  axes: tuple[int, int, int]
  slices_reversed: bool
  affine: np.ndarray
  unit: str = 'mm'


@dataclasses.dataclass(frozen=True)
class Acquisition:
  """How a CT was acquired, as far as its source says so plausibly; else None.

  Nothing in it names a patient, a device's number or an institution.

  Attributes:
    manufacturer: of the scanner, as written.
    model: Manufacturer's Model Name.
    kernel: convolution kernel; several values joined by '/'.
    kvp: tube voltage, kV.
    slice_thickness_mm: nominal thickness of a slice.
    slice_distance_mm: between neighbouring slice positions.
    contrast: whether contrast was given, by whatever way; None: not recorded.
    contrast_agent: agent, route and phase of contrast in words of a fixed list, capital
      letters; free text may hold a name and is not kept.
    patient_position: defined term of DICOM, such as 'HFS'.
    exposure_mas: average over the slices that state it, mAs.
    tube_current_ma: the same of the tube current, mA.
    rotation_time_s: of one rotation.
    gantry_tilt_deg: as the header says, whatever the slices' positions show.
  """

  manufacturer: str | None = None
  model: str | None = None
  kernel: str | None = None
  kvp: float | None = None
  slice_thickness_mm: float | None = None
  slice_distance_mm: float | None = None
  contrast: bool | None = None
  contrast_agent: str | None = None
  patient_position: str | None = None
  exposure_mas: float | None = None
  tube_current_ma: float | None = None
  rotation_time_s: float | None = None
  gantry_tilt_deg: float | None = None

  def in_words(self) -> str:
    """Scanner, kernel, tube, slices, contrast and position, as far as stated."""
    thickness_mm = self.slice_thickness_mm
    parts = (
      ' '.join(text for text in (self.manufacturer, self.model) if text),
      f'kernel {self.kernel}' if self.kernel else '',
      f'{self.kvp:g} kV' if self.kvp else '',
      f'{self.exposure_mas:g} mAs' if self.exposure_mas else '',
      f'slices of {thickness_mm:.3g} mm' if thickness_mm else '',
      self._contrast_in_words(),
      f'position {self.patient_position}' if self.patient_position else '',
    )
    return ', '.join(filter(None, parts))

  def _contrast_in_words(self) -> str:
    if self.contrast is None:
      return ''
    if not self.contrast:
      return 'without contrast'
    return f'contrast ({self.contrast_agent})' if self.contrast_agent else 'contrast'


@dataclasses.dataclass(frozen=True)
class CTVolume:
  """A CT series as one block of Hounsfield units.

    volume = covid_tf.CTVolume.from_array(
      hu, spacing_mm=(5.0, 0.7, 0.7), orientation='LPS'
    )

  `read_ct`, `from_array`, `from_sitk` and `from_nibabel` make one and check that it is
  a chest in Hounsfield units; the constructor takes what it is given.

  Slice 0 is the most inferior one of the patient, also where rows or columns are
  stored the other way round (docs/adr/0115). Rows and columns stay as stored, so
  that anatomical directions come from the affine, never from an index.

  Attributes:
    hu: int16 [slice, row, column], Hounsfield units, not below -1024.
    affine: float64 [4, 4], index (slice, row, column, 1) of a voxel's centre to
      patient millimetres (DICOM LPS: x to the left, y to the back, z to the
      head).
    study_uid: DICOM Study Instance UID, or '' where the source has none.
    series_uid: DICOM Series Instance UID, or '' where the source has none.
    warnings: oddities that changed no millimetre and no HU inside the body.
    acquisition_date: 'YYYY-MM-DD', or None.
    patient_key: HMAC-SHA-256 (hex) of the patient's ID and its issuer under a
      site's key, or None. The ID itself never leaves the reader.
    stored_grid: how the file or image it came from stores it; None for DICOM.
    acquisition: how it was acquired, or None where nobody says.
  """

  hu: np.ndarray
  affine: np.ndarray
  study_uid: str = ''
  series_uid: str = ''
  warnings: tuple[str, ...] = ()
  acquisition_date: str | None = None
  patient_key: str | None = None
  stored_grid: StoredGrid | None = None
  acquisition: Acquisition | None = None

  def __post_init__(self) -> None:
    if not isinstance(self.hu, np.ndarray):
      raise ValueError(
        'hu must be an int16 numpy array [slice, row, column], found '
        f'{type(self.hu).__name__}; give its voxels as such an array, in Hounsfield '
        'units; CTVolume.from_array makes a volume of other arrays, from_sitk and '
        'from_nibabel of images.'
      )
    if self.hu.ndim != 3 or self.hu.dtype != np.int16:
      raise ValueError(
        'hu must be int16 [slice, row, column], found '
        f'{self.hu.dtype} with {self.hu.ndim} axes; if these are Hounsfield units, '
        'round them and convert: np.rint(hu).astype(np.int16), or use '
        'CTVolume.from_array.'
      )
    try:
      affine = np.array(self.affine, np.float64)  # A copy: frozen means frozen.
    except (TypeError, ValueError):
      raise ValueError(
        f'affine must be numbers [4, 4], found {type(self.affine).__name__}.'
      ) from None
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
      raise ValueError(f'affine must be finite [4, 4], found {affine.tolist()}.')
    if (
      not np.array_equal(affine[3], (0, 0, 0, 1))
      or abs(np.linalg.det(affine[:3, :3])) < 1e-9
    ):
      raise ValueError(
        'affine must map the index to millimetres one to one with last row '
        f'(0, 0, 0, 1), found {affine.tolist()}.'
      )
    affine.setflags(write=False)
    object.__setattr__(self, 'affine', affine)

  @classmethod
  def from_array(
    cls,
    hu: npt.ArrayLike,
    *,
    spacing_mm: Sequence[float],
    orientation: str | None = None,
    origin: npt.ArrayLike | None = None,
    direction: npt.ArrayLike | None = None,
  ) -> 'CTVolume':
    """Makes a volume of an array in Hounsfield units.

      volume = covid_tf.CTVolume.from_array(
        hu, spacing_mm=(5.0, 0.7, 0.7), orientation='LPS'
      )

    Args:
      hu: [slice, row, column], 2 voxels or more along each axis; integers, or
        floating-point numbers without fractions, in Hounsfield units. An int16 array
        that needs no other order is shared, not copied: leave it as it is.
      spacing_mm: millimetres between voxel centres, (slice, row, column).
      orientation: to where the column, row and slice indices increase, in that
        order, a letter each of L or R (left, right), P or A (back, front), S or I
        (head, feet): 'LPS' is columns to the patient's left, rows to the back, slices
        to the head. All 48 such words are read; of an array whose slices are not
        axial, the volume's slices are.
      origin: LPS millimetres (x, y, z) of the centre of hu[0, 0, 0]; None: 0, 0, 0.
      direction: float [3, 3], instead of an orientation where the axes are oblique:
        unit vectors in LPS as columns, along the growing column, row and slice index
        in that order, as SimpleITK's GetDirection() has them. With an orientation
        beside it the two must agree.

    Returns:
      The volume; results are stored on the array's own axes.

    Raises:
      errors.UsageError: an argument is of another kind, or they contradict each other;
        neither orientation nor direction is given.
      errors.CTReadError: the numbers are no Hounsfield units of a chest (shares, grey
        values of 0 to 255, a window, stored values), NaN, fractions or beyond int16;
        the spacing is none of a CT; the axes are in another order than stated.
    """
    # Here, as below: what checks files and arrays lies above the plain data.
    from covid_tf.readers import arrays

    del cls
    return arrays.from_array(hu, spacing_mm, orientation, origin, direction)

  @classmethod
  def from_sitk(cls, image: 'SimpleITK.Image') -> 'CTVolume':
    """Makes a volume of a SimpleITK image in Hounsfield units.

      volume = covid_tf.CTVolume.from_sitk(SimpleITK.ReadImage('ct.nrrd'))

    Args:
      image: of three axes (others of size one), one number a voxel; spacing, direction
        and origin in LPS millimetres are taken as they are. Numbers are rounded.

    Returns:
      The volume; results are stored on the image's own axes.

    Raises:
      errors.UsageError: it is no SimpleITK image.
      errors.CTReadError: a time axis, several numbers a voxel, oblique slices, or no
        Hounsfield units of a chest.
    """
    from covid_tf.readers import arrays

    del cls
    return arrays.from_sitk(image)

  @classmethod
  def from_nibabel(cls, image: 'nibabel.filebasedimages.FileBasedImage') -> 'CTVolume':
    """Makes a volume of a nibabel image in Hounsfield units, as `read_ct` of its file.

      volume = covid_tf.CTVolume.from_nibabel(nibabel.load('ct.nii.gz'))

    Args:
      image: NIfTI with a valid sform or qform, which agree; its scaled numbers are
        taken, rounded.

    Returns:
      The volume; results are stored on the image's own axes.

    Raises:
      errors.UsageError: it is no nibabel image of NIfTI.
      errors.CTReadError: as for a NIfTI file (docs/reader.md).
    """
    from covid_tf.readers import arrays

    del cls
    return arrays.from_nibabel(image)

  def to_sitk(self) -> 'SimpleITK.Image':
    """The volume as a SimpleITK image, int16 HU, on the axes that it came on.

      SimpleITK.WriteImage(volume.to_sitk(), 'ct.nrrd')

    A volume of DICOM has the axes column, row, slice.

    Raises:
      errors.UsageError: SimpleITK is missing (extra [itk]), or the axes are sheared.
    """
    from covid_tf.readers import arrays

    return arrays.to_sitk(self)

  def to_nibabel(self) -> 'nibabel.Nifti1Image':
    """The volume as a nibabel image, int16 HU, on the axes that it came on.

      nibabel.save(volume.to_nibabel(), 'ct.nii.gz')

    A volume of DICOM has the axes column, row, slice.
    """
    from covid_tf.readers import arrays

    return arrays.to_nibabel(self)

  def __repr__(self) -> str:
    slices, rows, columns = self.shape
    steps = ' x '.join(f'{step:.4g}' for step in self.spacing_mm)
    lowest, highest = int(self.hu.min()), int(self.hu.max())
    return (
      f'<CTVolume: {slices} slices of {rows} x {columns}, {steps} mm, '
      f'{lowest} to {highest} HU, {len(self.warnings)} warnings>'
    )

  @property
  def shape(self) -> tuple[int, int, int]:
    """(slices, rows, columns)."""
    return self.hu.shape

  @property
  def spacing_mm(self) -> tuple[float, float, float]:
    """Millimetres between voxel centres along (slice, row, column)."""
    slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
    return slice_mm, row_mm, column_mm

  @property
  def voxel_volume_mm3(self) -> float:
    """Volume of one voxel, by the determinant, so right for any orientation."""
    return float(abs(np.linalg.det(self.affine[:3, :3])))

  def index_to_lps_mm(self, index: npt.ArrayLike) -> np.ndarray:
    """Maps (slice, row, column) indices [..., 3] to LPS millimetres [..., 3]."""
    index = np.asarray(index, np.float64)
    return index @ self.affine[:3, :3].T + self.affine[:3, 3]

  def lps_mm_to_index(self, point_mm: npt.ArrayLike) -> np.ndarray:
    """Maps LPS millimetres [..., 3] to (slice, row, column) indices [..., 3]."""
    offset = np.asarray(point_mm, np.float64) - self.affine[:3, 3]
    return np.linalg.solve(self.affine[:3, :3], offset[..., np.newaxis])[..., 0]
