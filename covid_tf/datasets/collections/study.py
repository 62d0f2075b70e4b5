"""What every importer gives: studies listed first, read one at a time."""

from collections.abc import Callable
import dataclasses

import numpy as np

from covid_tf import orientation
from covid_tf import volume as volume_lib

UNLABELLED = -1

DRAWN = 'drawn'
PSEUDO = 'pseudo'
NO_MASK = 'none'


@dataclasses.dataclass(frozen=True)
class Study:
  """The slices of one series with what is known of them.

  Attributes:
    hu: int16 [slice, row, column], HU; slice 0 the lowest, where order is known.
    labels: int8 [slice], 1 COVID, 0 not, -1 unknown.
    spacing_mm: between (slices, rows, columns); 0 where the source does not say.
    lung_mask: uint8 [slice, row, column], 0 or 1, or None.
    lesion_mask: uint8 [slice, row, column], 0 or 1; None where nobody has drawn it.
    lung_mask_kind: 'drawn' (by a person or by a phantom's recipe), 'pseudo'
      (by classical segmentation) or 'none'.
    box: [row0, column0, row1, column1], the lung box, half open; None: not yet.
    window_hu: (low, high) of grey values that were turned back into HU; None where
      the source holds HU.
    slice_index: int [slice], the slices' numbers in their series; None: 0, 1, ...
  """

  hu: np.ndarray
  labels: np.ndarray
  spacing_mm: tuple[float, float, float]
  lung_mask: np.ndarray | None = None
  lesion_mask: np.ndarray | None = None
  lung_mask_kind: str = NO_MASK
  box: tuple[int, int, int, int] | None = None
  window_hu: tuple[float, float] | None = None
  slice_index: np.ndarray | None = None

  def __post_init__(self):
    if self.hu.ndim != 3 or self.hu.dtype != np.int16 or not self.hu.size:
      raise ValueError(
          'hu must be int16 [slice, row, column] with at least one voxel, found '
          f'{self.hu.dtype} {self.hu.shape}.')
    for name in ('lung_mask', 'lesion_mask'):
      mask = getattr(self, name)
      if mask is not None and (mask.shape != self.hu.shape or mask.dtype != np.uint8):
        raise ValueError(
            f'{name} must be uint8 {self.hu.shape} as hu, found {mask.dtype} '
            f'{mask.shape}.')
    if self.labels.shape != self.hu.shape[:1] or not np.isin(
        self.labels, (UNLABELLED, 0, 1)).all():
      raise ValueError(f'labels must be {len(self.hu)} of -1, 0 and 1.')


def of_volume(
    volume: volume_lib.CTVolume, labels: np.ndarray,
    lung_mask: np.ndarray | None = None, lesion_mask: np.ndarray | None = None,
    lung_mask_kind: str = NO_MASK,
    window_hu: tuple[float, float] | None = None) -> Study:
  """A study from a volume, its planes turned as networks are asked about them.

  Args:
    volume: the CT.
    labels: int8 [slice], in the volume's order.
    lung_mask, lesion_mask: uint8 [slice, row, column] on the volume's grid, or None.
    lung_mask_kind, window_hu: as in Study.
  """
  turn = orientation.plane_turn(volume.affine)
  through, *in_plane = volume.spacing_mm
  if turn.swapped:
    in_plane.reverse()
  hu, lung_mask, lesion_mask = (
      None if planes is None else turn.to_usual(planes)
      for planes in (volume.hu, lung_mask, lesion_mask))
  return Study(hu, labels, (through, *in_plane), lung_mask, lesion_mask,
               lung_mask_kind, window_hu=window_hu)


@dataclasses.dataclass(frozen=True)
class StudyEntry:
  """A study in the list of a collection, before a slice of it is read.

  Attributes:
    source: the collection's name.
    patient: key of the patient, with the collection's name in front.
    series: the collection's own name of the series.
    stratum: what splits keep in proportion, such as 'covid' or 'normal'.
    read: gives the study; raises errors.CovidTFError where it cannot be had.
    case_label: 1 COVID, 0 not, -1 unknown: of the patient at this time.
    severity: the collection's grade, or ''.
    labels_by: who labelled the slices, as the collection says, or ''.
    given_set: the set that the collection puts the study into, or ''.
  """

  source: str
  patient: str
  series: str
  stratum: str
  read: Callable[[], Study] = dataclasses.field(repr=False)
  case_label: int = UNLABELLED
  severity: str = ''
  labels_by: str = ''
  given_set: str = ''


def labels_from_lesions(
    lesion_mask: np.ndarray, pixel_mm: float, smallest_mm2: float = 0.0) -> np.ndarray:
  """Slice labels that follow from drawn lesions.

  Args:
    lesion_mask: uint8 [slice, row, column].
    pixel_mm: in-plane spacing.
    smallest_mm2: a slice with less lesion than this, but some, is unlabelled.

  Returns:
    int8 [slice].
  """
  area_mm2 = lesion_mask.sum(axis=(1, 2), dtype=np.int64) * pixel_mm**2
  labels = np.where(area_mm2 >= max(smallest_mm2, 1e-9), 1, UNLABELLED)
  return np.where(area_mm2 == 0, 0, labels).astype(np.int8)
