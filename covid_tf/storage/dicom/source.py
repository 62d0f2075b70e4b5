"""The CT series that objects are made for: whose it is, and where its slices lie.

Headers as scanners and archives leave them break writers of DICOM in many ways, so
nothing is copied from them: each value that an object needs is read, checked and
written anew. What identifies the study must be right, else the series is refused; of
the rest, what cannot be used is left empty, as the standard allows.
"""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import os
import pathlib

import numpy as np
import pydicom
from pydicom import datadict
from pydicom import uid
from pydicom import valuerep

from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import elements as elements_lib
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib
from covid_tf.storage.dicom import cleaning

UTF_8 = 'ISO_IR 192'  # Whatever the source declares (PS3.3 C.12.1.1.2).
# Two grids are one if their voxels lie no further apart.
SAME_MM = 1e-3

# Must be there, empty where the source says nothing (type 2, PS3.3 C.7.1 to C.7.3).
_REQUIRED = (
  'PatientName',
  'PatientID',
  'PatientBirthDate',
  'PatientSex',
  'StudyDate',
  'StudyTime',
  'ReferringPhysicianName',
  'StudyID',
  'AccessionNumber',
)
# Of patient and study: the same in all headers.
_OF_STUDY = (
  *_REQUIRED,
  'IssuerOfPatientID',
  'PatientAge',
  'PatientSize',
  'PatientWeight',
  'StudyDescription',
)
_OF_SERIES = (
  'SeriesNumber',
  'SeriesDate',
  'SeriesTime',
  'SeriesDescription',
  'BodyPartExamined',
  'PatientPosition',
  'PositionReferenceIndicator',
  'Manufacturer',
  'ManufacturerModelName',
)
_OF_IMAGE = (
  'InstanceNumber',
  'AcquisitionNumber',
  'AcquisitionDate',
  'AcquisitionTime',
  'ContentDate',
  'ContentTime',
)
_LOSSY = 'LossyImageCompression'


@dataclasses.dataclass(frozen=True)
class SourceSeries:
  """The series that a study was scored from.

  Attributes:
    headers: [slice], slice 0 the most inferior one of the patient, as in the CTVolume:
      what objects need of each, checked, without pixels, in UTF-8. Type 2 attributes
      of patient and study are there, empty where the source has none.
    affine: float64 [4, 4], (slice, row, column, 1) to LPS millimetres.
    notes: what of the headers could not be kept as it was; holds no values.
    frames: [slice], the frame of its file that a slice is, from 1; None of a file of
      one image. () where all are such files.
    frame_counts: SOP Instance UID of a file to its number of frames.
  """

  # Not shown: they name the patient.
  headers: tuple[pydicom.Dataset, ...] = dataclasses.field(repr=False)
  affine: np.ndarray
  notes: tuple[str, ...] = ()
  frames: tuple[int | None, ...] = ()
  frame_counts: dict[str, int] = dataclasses.field(default_factory=dict)

  @property
  def study_uid(self) -> str:
    """Study Instance UID."""
    return str(self.headers[0].StudyInstanceUID)

  @property
  def series_uid(self) -> str:
    """Series Instance UID."""
    return str(self.headers[0].SeriesInstanceUID)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(slices, rows, columns)."""
    first = self.headers[0]
    return len(self.headers), int(first.Rows), int(first.Columns)

  @property
  def is_multi_frame(self) -> bool:
    """Whether slices are frames of files that have several (enhanced CT)."""
    return any(frame is not None for frame in self.frames)

  def references(self, slices: Iterable[int] | None = None) -> list[pydicom.Dataset]:
    """Items that refer to the images of slices, by default of all.

    Returns:
      One a file (PS3.3 table 10-3), in the order of slices; with Referenced Frame
      Number where the slices are not all of its frames.
    """
    chosen = range(len(self.headers)) if slices is None else slices
    files: dict[str, list[int]] = collections.defaultdict(list)
    for index in chosen:
      files[str(self.headers[index].SOPInstanceUID)].append(index)
    return [self._reference(instance, of_file) for instance, of_file in files.items()]

  def _reference(self, instance: str, slices: Sequence[int]) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = self.headers[slices[0]].SOPClassUID
    item.ReferencedSOPInstanceUID = instance
    count = self.frame_counts.get(instance)
    frames = {self.frames[index] for index in slices} if count else set()
    if count and len(frames) < count:
      item.ReferencedFrameNumber = sorted(frame for frame in frames if frame)
    return item


def read_source(
  study: str | os.PathLike[str],
  series_uid: str | None = None,
  *,
  phase: str | int | None = None,
  select: str | None = None,
) -> SourceSeries:
  """Reads the headers of the series that objects are to be made for.

  Args:
    study: folder of DICOM files, a DICOMDIR or a zip.
    series_uid, phase, select: which slices, as of `covid_tf.read_ct`; they give the
      slices of its volume in the same order.

  Raises:
    errors.CTReadError: it is no series that objects can be made for; says why.
    errors.UsageError: phase or select is none, or select and series_uid are both given.
  """
  found = readers.read_headers(study, _tags(), series_uid, phase=phase, select=select)
  return _checked(found, pathlib.Path(os.fsdecode(study)).name)


def read_source_of_files(
  files: Iterable[str | os.PathLike[str]],
  series_uid: str | None = None,
  *,
  name: str,
  phase: str | int | None = None,
) -> SourceSeries:
  """The same of DICOM files that are known to belong together.

  Args:
    files, name: as of `readers.read_files`.
    series_uid, phase: as of `read_source`.

  Raises:
    errors.CTReadError, errors.UsageError: as of `read_source`.
  """
  return _checked(
    readers.read_headers_of_files(files, _tags(), series_uid, name=name, phase=phase),
    name,
  )


def _checked(found: readers.SliceHeaders, name: str) -> SourceSeries:
  name = elements_lib.printable(name)
  try:
    _require_upright(found.grid)
    return _source(found)
  except errors.CTReadError as error:
    raise errors.CTReadError(f'{name}: no DICOM objects: {error}') from None


def _tags() -> list[int]:
  keywords = (*_OF_STUDY, *_OF_SERIES, *_OF_IMAGE, _LOSSY, 'SpecificCharacterSet')
  identity = (
    'StudyInstanceUID',
    'SeriesInstanceUID',
    'FrameOfReferenceUID',
    'SOPInstanceUID',
    'NumberOfFrames',
    *cleaning.DEIDENTIFICATION,
  )
  return [cleaning.tag_of(keyword) for keyword in (*keywords, *identity)]


def _require_upright(grid: geometry.Grid) -> None:
  try:
    geometry.require_upright(grid.tilt_deg)
  except errors.CTReadError:
    raise errors.CTReadError(
      f'slices that lie above each other are required, found a gantry tilt of '
      f'{grid.tilt_deg:.1f} degrees: voxels of the straightened volume are none of '
      'its own images; leave the DICOM objects out.'
    ) from None


def _source(found: readers.SliceHeaders) -> SourceSeries:
  notes: dict[str, None] = {}
  study_uid, series_uid, frame_uid = (
    _one_uid(found.elements, keyword)
    for keyword in ('StudyInstanceUID', 'SeriesInstanceUID', 'FrameOfReferenceUID')
  )
  shared = pydicom.Dataset()
  shared.SpecificCharacterSet = UTF_8
  shared.StudyInstanceUID = study_uid
  shared.SeriesInstanceUID = series_uid
  shared.FrameOfReferenceUID = frame_uid
  shared.Modality = 'CT'
  for keyword in (*_OF_STUDY, *_OF_SERIES):
    value = _first_value(found.elements, keyword, notes)
    if value or keyword in _REQUIRED:
      setattr(shared, keyword, value)
  shared.update(cleaning.deidentification(found.elements[0], notes))
  if any(
    elements_lib.text(one, cleaning.tag_of(_LOSSY)) == '01' for one in found.elements
  ):
    setattr(shared, _LOSSY, '01')
  headers = tuple(
    _header(shared, image, elements, found.grid, notes)
    for image, elements in zip(found.images, found.elements)
  )
  frames, counts = _frames(found)
  _require_distinct(headers, frames)
  return SourceSeries(headers, found.grid.affine, tuple(notes), frames, counts)


def _frames(
  found: readers.SliceHeaders,
) -> tuple[tuple[int | None, ...], dict[str, int]]:
  """Frame of each slice in its file, and how many a file has."""
  frames = tuple(
    image.frame + 1 if image.sop_class in elements_lib.MULTI_FRAME_CT else None
    for image in found.images
  )
  counts = {
    elements_lib.text(elements, cleaning.tag_of('SOPInstanceUID')): _frame_count(
      elements
    )
    for elements, frame in zip(found.elements, frames)
    if frame is not None
  }
  return frames, counts


def _one_uid(all_elements: Sequence[elements_lib.Elements], keyword: str) -> str:
  """The one UID of a kind that all slices have; some may lack it."""
  tag = cleaning.tag_of(keyword)
  found = {elements_lib.text(elements, tag) for elements in all_elements} - {''}
  name = datadict.dictionary_description(tag)
  if len(found) != 1:
    raise errors.CTReadError(
      f'one {name} is required, found {len(found) or "none"}; export the series with '
      'it, or leave the DICOM objects out.'
    )
  (one,) = found
  if not elements_lib.legal_uid(one):
    raise errors.CTReadError(
      f'a legal {name} is required (digits and dots, at most 64), found another text; '
      'export the series anew, or leave the DICOM objects out.'
    )
  return one


def _frame_count(elements: elements_lib.Elements) -> int:
  # As the reader took it: one frame may go without saying.
  if not elements_lib.raw(elements, elements_lib.NUMBER_OF_FRAMES):
    return 1
  return int(elements_lib.decimals(elements, elements_lib.NUMBER_OF_FRAMES, 1)[0])


def _require_distinct(
  headers: Sequence[pydicom.Dataset], frames: Sequence[int | None]
) -> None:
  places = {(each.SOPInstanceUID, frame) for each, frame in zip(headers, frames)}
  if len(places) < len(headers):
    raise errors.CTReadError(
      'a SOP Instance UID of its own is required of each slice, found one that '
      'several share; export the series anew.'
    )


def _header(
  shared: pydicom.Dataset,
  image: images_lib.Image,
  elements: elements_lib.Elements,
  grid: geometry.Grid,
  notes: dict[str, None],
) -> pydicom.Dataset:
  """What objects need of one slice: as the reader takes it, number for number."""
  header = pydicom.Dataset()
  header.update(shared)
  header.SOPClassUID = image.sop_class or uid.CTImageStorage
  header.SOPInstanceUID = _one_uid([elements], 'SOPInstanceUID')
  for keyword in _OF_IMAGE:
    if value := cleaning.value(elements, keyword, notes):
      setattr(header, keyword, value)
  if 'InstanceNumber' not in header:
    header.InstanceNumber = None
  layout, plane = image.require_pixels(), image.require_plane()
  header.Rows, header.Columns = layout.rows, layout.columns
  header.ImagePositionPatient = _decimals(plane.position)
  # As in the affine: one orientation and one spacing, those of the first slice.
  steps = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
  header.ImageOrientationPatient = _decimals((*steps[:, 2], *steps[:, 1]))
  slice_mm, *in_plane_mm = np.linalg.norm(grid.affine[:3, :3], axis=0)
  header.PixelSpacing = _decimals(in_plane_mm)
  thickness_mm = image.thickness_mm or 0
  header.SliceThickness = _decimals([thickness_mm if thickness_mm > 0 else slice_mm])[0]
  header.SpacingBetweenSlices = _decimals([slice_mm])[0]
  return header


def _decimals(values: Iterable[float]) -> list[valuerep.DSfloat]:
  """Decimal strings of at most 16 characters, as near as they can be."""
  return [valuerep.DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _first_value(
  all_elements: Sequence[elements_lib.Elements], keyword: str, notes: dict[str, None]
) -> str:
  """The value of the first slice that has one that can be used."""
  values = (cleaning.value(elements, keyword, notes) for elements in all_elements)
  return next(filter(None, values), '')
