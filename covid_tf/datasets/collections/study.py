"""What every importer gives: studies listed first, read one at a time."""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
from scipy import ndimage

from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.analysis import lung_pieces
from covid_tf.analysis import lungs
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib

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
    acquisition: how the series was acquired; None where that is not known.
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
  acquisition: volume_lib.Acquisition | None = None

  def __post_init__(self):
    if self.hu.ndim != 3 or self.hu.dtype != np.int16 or not self.hu.size:
      raise ValueError(
        'hu must be int16 [slice, row, column] with at least one voxel, found '
        f'{self.hu.dtype} {self.hu.shape}.'
      )
    for name in ('lung_mask', 'lesion_mask'):
      mask = getattr(self, name)
      if mask is not None and (mask.shape != self.hu.shape or mask.dtype != np.uint8):
        raise ValueError(
          f'{name} must be uint8 {self.hu.shape} as hu, found {mask.dtype} '
          f'{mask.shape}.'
        )
    if (
      self.labels.shape != self.hu.shape[:1]
      or not np.isin(self.labels, (UNLABELLED, 0, 1)).all()
    ):
      raise ValueError(f'labels must be {len(self.hu)} of -1, 0 and 1.')


def of_volume(
  volume: volume_lib.CTVolume,
  labels: np.ndarray,
  lung_mask: np.ndarray | None = None,
  lesion_mask: np.ndarray | None = None,
  lung_mask_kind: str = NO_MASK,
  window_hu: tuple[float, float] | None = None,
) -> Study:
  """A study from a volume, its planes turned as networks are asked about them.

  Args:
    volume: the CT.
    labels: int8 [slice], in the volume's order.
    lung_mask, lesion_mask: uint8 [slice, row, column] on the volume's grid, or None.
    lung_mask_kind, window_hu: as in Study.
  """
  turn = orientation.plane_turn(volume.affine)
  through, down, across = volume.spacing_mm
  if turn.swapped:
    down, across = across, down
  lung_mask, lesion_mask = (
    None if planes is None else turn.to_usual(planes)
    for planes in (lung_mask, lesion_mask)
  )
  return Study(
    turn.to_usual(volume.hu),
    labels,
    (through, down, across),
    lung_mask,
    lesion_mask,
    lung_mask_kind,
    window_hu=window_hu,
    acquisition=volume.acquisition,
  )


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
  lesion_mask: np.ndarray, pixel_mm: float, smallest_mm2: float = 0.0
) -> np.ndarray:
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


# Lung masks by classical segmentation: pseudo-labels for chests without masks.
#
# Good enough to train on where lungs are aerated; consolidated lung is lost, so a
# mask is made before a lesion is implanted, never after.

AERATED_LUNG_HU = -400  # Between aerated lung and soft tissue; ours.
# Ours: a second component smaller than this share of the first is no lung (the two
# often touch and make one component).
SMALLEST_SHARE = 0.1


def segment_lungs(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
  """Segments aerated lungs with their vessels, without trachea-sized airways.

  Args:
    hu: [slice, row, column] in HU.
    spacing_mm: voxel spacing (slice, row, column).

  Returns:
    uint8 [slice, row, column], 0 or 1; all 0 where no lung is found.
  """
  air = np.asarray(hu) < AERATED_LUNG_HU
  inside = np.stack([_without_outside_air(plane) for plane in air])
  labels, count = ndimage.label(inside)
  if not count:
    return np.zeros(inside.shape, np.uint8)
  sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
  largest = np.argsort(sizes)[::-1][:2]
  kept = [i + 1 for i in largest if sizes[i] >= SMALLEST_SHARE * sizes.max()]
  mask = np.isin(labels, kept)
  return np.stack([_close_vessels(plane, spacing_mm[1]) for plane in mask]).astype(
    np.uint8
  )


def segment_slice_lungs(hu: np.ndarray, pixel_mm: float) -> np.ndarray:
  """Segments one slice [row, column]: its large inner air regions; uint8."""
  inside = _without_outside_air(np.asarray(hu) < AERATED_LUNG_HU)
  labels, count = ndimage.label(inside)
  areas_cm2 = np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm**2 / 100.0
  mask = np.isin(labels, np.flatnonzero(areas_cm2 > 6.0) + 1)
  return _close_vessels(mask, pixel_mm).astype(np.uint8)


def _without_outside_air(air):
  """Takes away air that touches the slice's border: air around the patient."""
  labels, _ = ndimage.label(air)
  border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
  return air & ~np.isin(labels, np.unique(border[border > 0]))


def _close_vessels(mask, pixel_mm):
  """Takes vessels and juxtapleural nodules back into the lung."""
  radius = max(1, int(round(5.0 / pixel_mm)))
  rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
  disk = rows**2 + columns**2 <= radius**2
  padded = np.pad(mask, radius)
  closed = ndimage.binary_closing(padded, disk)[radius:-radius, radius:-radius]
  return ndimage.binary_fill_holes(closed)


# What every study goes through before it is written: masks, stored size, lung box.

# Ours: for pictures without a spacing, a usual width of a chest CT's field of view.
_ASSUMED_WIDTH_MM = 360.0


def prepared(
  study: Study, size: int, name: str, thickness_mm: float | None = None
) -> Study:
  """Adds pseudo lung masks where there are none, shrinks, and finds the lung box.

  The box follows the rule of inference: of the pieces that are lung, the largest box
  of a slice.

  Args:
    study: as its importer read it.
    size: largest side to store; larger slices become means of whole blocks. 0 keeps
      slices as they are.
    name: of the study, for messages.
    thickness_mm: slices that lie closer are averaged to slabs this thick, as
      `analyze` does; None: slices as they are.

  Returns:
    The study with lung mask and box.

  Raises:
    errors.NoLungsError: no lungs were found in it.
  """
  if study.lung_mask is None:
    study = _with_pseudo_lungs(study)
  study = averaged(study, thickness_mm)
  study = _shrunk(study, size) if size else study
  if study.box is not None:
    return study
  mask = study.lung_mask
  assert mask is not None  # Its own, or the pseudo mask.
  if study.spacing_mm[0] > 0:  # Else slices are single, or far apart.
    mask = lung_pieces.keep_lungs(mask.copy(), _usual_affine(study.spacing_mm))
  if not mask.any():
    raise errors.NoLungsError(
      f'{name}: lungs are required for its lung box, found none; leave the study '
      'out, or give a lung mask.'
    )
  box = lungs.largest_box(lungs.slice_boxes(mask))
  return dataclasses.replace(study, box=tuple(box.as_list()))


def averaged(study: Study, thickness_mm: float | None) -> Study:
  """The study as slabs; masks and labels by the larger part of a slab.

  A slab is positive where positive slices make up half of it, and negative where no
  slice of it is anything else; others are unlabelled, as a radiologist would not label
  the edge of an opacity.

  Args:
    study: with a lung mask or without.
    thickness_mm: of a slab; None: slices as they are, as are those without a distance.
  """
  slice_mm, row_mm, column_mm = study.spacing_mm
  slabs = slabs_lib.divide(len(study.hu), slice_mm, thickness_mm)
  if not slice_mm or not slabs.is_averaged:
    return study
  every = slice(None)

  def shares(of: np.ndarray) -> np.ndarray:
    return slabs.average(100 * of.astype(np.int16), every)

  planes = study.labels[:, np.newaxis, np.newaxis]
  positive = shares(planes == 1)[:, 0, 0] >= 50
  negative = shares(planes != 0)[:, 0, 0] == 0
  masks: dict[str, Any] = {
    name: (shares(mask) >= 50).astype(np.uint8)
    for name in ('lung_mask', 'lesion_mask')
    if (mask := getattr(study, name)) is not None
  }
  index = np.arange(len(study.hu)) if study.slice_index is None else study.slice_index
  return dataclasses.replace(
    study,
    hu=slabs.average(study.hu, every),
    labels=np.where(positive, 1, np.where(negative, 0, UNLABELLED)).astype(np.int8),
    spacing_mm=(slabs.thickness_mm, row_mm, column_mm),
    slice_index=index[slabs.middles(every)],
    **masks,
  )


def _usual_affine(spacing_mm):
  """Slices from the feet to the head, rows to the back, columns to the left."""
  affine = np.zeros((4, 4))
  affine[(2, 1, 0, 3), (0, 1, 2, 3)] = (*spacing_mm, 1)
  return affine


def _with_pseudo_lungs(study):
  if study.spacing_mm[0] > 0:
    mask = segment_lungs(study.hu, study.spacing_mm)
  else:
    pixel_mm = study.spacing_mm[1] or _ASSUMED_WIDTH_MM / study.hu.shape[2]
    mask = np.stack([segment_slice_lungs(hu, pixel_mm) for hu in study.hu])
  if study.lesion_mask is not None:
    mask = np.maximum(mask, study.lesion_mask)  # Consolidated lung is lung.
  return dataclasses.replace(study, lung_mask=mask, lung_mask_kind=PSEUDO)


def _shrunk(study, size):
  step = -(-max(study.hu.shape[1:]) // size)
  if step == 1:
    return study
  masks = {}
  for name in ('lung_mask', 'lesion_mask'):
    mask = getattr(study, name)
    if mask is not None:
      masks[name] = np.stack(
        [_block_means(plane, step, 0) >= 0.5 for plane in mask]
      ).astype(np.uint8)
  hu = np.stack([np.rint(_block_means(plane, step, None)) for plane in study.hu])
  box = study.box and tuple(
    side // step if place < 2 else -(-side // step)
    for place, side in enumerate(study.box)
  )
  slice_mm, row_mm, column_mm = study.spacing_mm
  return dataclasses.replace(
    study,
    hu=hu.astype(np.int16),
    box=box,
    spacing_mm=(slice_mm, row_mm * step, column_mm * step),
    **masks,
  )


def _block_means(plane, step, fill):
  """float32 means of step x step blocks; `fill` beyond the edge, None repeats it."""
  pad = [(0, -side % step) for side in plane.shape]
  how = {'mode': 'edge'} if fill is None else {'constant_values': fill}
  plane = np.pad(plane.astype(np.float32), pad, **how)
  rows, columns = plane.shape
  blocks = plane.reshape(rows // step, step, columns // step, step)
  return blocks.mean(axis=(1, 3))
