"""What a scored study is: plain data, from the lung box to the case's numbers."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from covid_tf import lung_measures
from covid_tf import volume as volume_lib

if TYPE_CHECKING:
  import matplotlib.figure

# Of result.json; raised when a field changes its meaning. 2: probabilities may be
# smoothed along the body (`thresholds.smoothing_mm`). 3: acquisition, densities, zone
# score, label regions and edits beside the score.
SCHEMA_VERSION = 3
READ_SCHEMAS = (1, 2, 3)


class SliceExplanation(NamedTuple):
  """The classifier's answers to N slices.

  Attributes:
    covid_probability: float32 [N], in [0, 1].
    cam_28: float32 [N, 28, 28], Grad-CAM at the fine scale, in [0, 1].
    cam_14: float32 [N, 14, 14], Grad-CAM at the coarse scale, in [0, 1].
  """

  covid_probability: np.ndarray
  cam_28: np.ndarray
  cam_14: np.ndarray


class SliceFeatures(NamedTuple):
  """What manifestations are clustered by, for N slices.

  Attributes:
    covid_probability: float32 [N], in [0, 1].
    features: float32 [N, 2048], pooled last convolution.
    gradients: float32 [N, 2048], d logit / d features.
  """

  covid_probability: np.ndarray
  features: np.ndarray
  gradients: np.ndarray


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
  """Which model answered.

  Attributes:
    name: 'lungs' or 'classifier'.
    version: the numbered version that answered.
    card_sha256: hex digest of the model's JSON card as served.
    card: the card itself, decoded.
  """

  name: str
  version: int
  card_sha256: str
  card: dict[str, Any] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  @property
  def is_demo(self) -> bool:
    """Whether its card calls it a demo model, from wherever it is served."""
    training = self.card.get('training')
    return isinstance(training, dict) and training.get('demo_weights') is True


def card_digests(models: Iterable[ModelIdentity]) -> dict[str, str]:
  """Name of each model to the digest of its card."""
  return {model.name: model.card_sha256 for model in models}


@dataclasses.dataclass(frozen=True)
class LungBox:
  """In-plane box around the lungs: rows [row0, row1), columns [column0, column1)."""

  row0: int
  column0: int
  row1: int
  column1: int

  @property
  def rows(self) -> slice:
    return slice(self.row0, self.row1)

  @property
  def columns(self) -> slice:
    return slice(self.column0, self.column1)

  @property
  def shape(self) -> tuple[int, int]:
    """(rows, columns)."""
    return self.row1 - self.row0, self.column1 - self.column0

  @property
  def area(self) -> int:
    """Pixels inside."""
    return self.shape[0] * self.shape[1]

  def as_list(self) -> list[int]:
    """[row0, column0, row1, column1], as result.json holds it."""
    return [self.row0, self.column0, self.row1, self.column1]


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """The thresholds of a score; every comparison is strict (`>`).

    result = covid_tf.analyze(volume, thresholds=covid_tf.Thresholds(map=0.7))

  ValueError where one is outside of its range.

  Attributes:
    slice_probability: a slice above it is detected positive (paper: 0.5).
    map: a voxel above it counts (paper, section 2.4: 0.6, by an expert's eye).
    case_corona_score_cm3: a case above it is detected; None: no case answer.
    thickness_mm: slices that lie closer are averaged to slabs this thick; None, in
      what is given to `analyze`: that of the classifier's card, else 5 mm. Of a result
      it is what was used, and None with every_slice.
    every_slice: each slice is taken as it is, as in the paper.
    smoothing_mm: standard deviation of the Gaussian that logits of slices, or slabs,
      are smoothed by along the body; 0: each answers for itself. None, in what is
      given to `analyze`: that of the classifier's card, else 6 mm, and 0 with
      every_slice. Of a result it is what was used.
  """

  slice_probability: float = 0.5
  map: float = 0.6
  case_corona_score_cm3: float | None = None
  thickness_mm: float | None = None
  every_slice: bool = False
  smoothing_mm: float | None = None

  def __post_init__(self) -> None:
    for name in ('slice_probability', 'map'):
      value = getattr(self, name)
      if not 0 <= value < 1:
        raise ValueError(f'{name} must be in [0, 1), found {value}.')
    case = self.case_corona_score_cm3
    if case is not None and not 0 <= case < float('inf'):
      raise ValueError(f'case_corona_score_cm3 must be finite and >= 0, found {case}.')
    if self.thickness_mm is not None:
      check_thickness(self.thickness_mm)
      if self.every_slice:
        raise ValueError(
          f'every_slice takes no thickness_mm, found {self.thickness_mm:g}; give one '
          'of the two.'
        )
    if self.smoothing_mm is not None:
      check_smoothing(self.smoothing_mm)


# Ours: twice the thickest slices of the paper (5 to 10 mm); thicker ones hold no
# opacity that a radiologist would measure.
MAX_THICKNESS_MM = 20.0


def check_thickness(thickness_mm: float) -> None:
  """Raises ValueError unless it is a thickness that slices can be averaged to."""
  # Not math.isnan: comparisons with NaN are false too.
  if not 0 < thickness_mm <= MAX_THICKNESS_MM:
    raise ValueError(
      f'thickness_mm must be above 0 and at most {MAX_THICKNESS_MM:g} mm, found '
      f'{thickness_mm:g}.'
    )


# Ours: beyond it a slice would get its answer from half a lung's height.
MAX_SMOOTHING_MM = 30.0


def check_smoothing(smoothing_mm: float) -> None:
  """Raises ValueError unless logits can be smoothed by it; 0 smooths nothing."""
  if not 0 <= smoothing_mm <= MAX_SMOOTHING_MM:
    raise ValueError(
      f'smoothing_mm must be 0 or more and at most {MAX_SMOOTHING_MM:g} mm, found '
      f'{smoothing_mm:g}.'
    )


@dataclasses.dataclass(frozen=True)
class LocalizationMap:
  """The 3D map, kept as the crops of the positive slices: all else is zero.

  Attributes:
    shape: (slices, rows, columns) of the CT grid it lies on.
    box: where in the plane the crops belong.
    slices: indices of the positive slices, ascending.
    maps: float32 [len(slices), box rows, box columns], in [0, 1]: an array, or a
      sequence of such crops that fuses each when it is asked for (`analyze`
      gives one; numpy.asarray makes it an array).
  """

  shape: tuple[int, int, int]
  box: LungBox
  slices: tuple[int, ...]
  maps: np.ndarray | Sequence[np.ndarray]

  def __repr__(self) -> str:
    return (
      f'<LocalizationMap: {len(self.slices)} of {self.shape[0]} slices, '
      f'{self.box.shape[0]} x {self.box.shape[1]} of {self.shape[1]} x {self.shape[2]}>'
    )

  def slice_map(self, index: int) -> np.ndarray:
    """float32 [rows, columns] of one slice on the CT grid."""
    plane = np.zeros(self.shape[1:], np.float32)
    if index in self.slices:
      plane[self.box.rows, self.box.columns] = self.maps[self.slices.index(index)]
    return plane

  def to_volume(self) -> np.ndarray:
    """float32 [slice, row, column] on the CT grid."""
    volume = np.zeros(self.shape, np.float32)
    for index, map_ in zip(self.slices, self.maps):
      volume[index, self.box.rows, self.box.columns] = map_
    return volume


@dataclasses.dataclass(frozen=True, eq=False)
class KeyPlanes:
  """Two planes of the CT that show a result.

  Attributes:
    axial_index: the slice with most of the score.
    axial_hu: int16 [row, column], that slice.
    coronal_axis: the array axis that the coronal plane fixes: 1 (rows), or 2 where
      columns run to the back.
    coronal_index: the row, or column, with most of what counts.
    coronal_hu: int16 [slice, column or row], that plane.
    of_ct: False: the CT is not at hand, the lungs are drawn instead.
  """

  axial_index: int
  axial_hu: np.ndarray
  coronal_axis: int
  coronal_index: int
  coronal_hu: np.ndarray
  of_ct: bool = True

  def __eq__(self, other: object) -> bool:
    return isinstance(other, KeyPlanes) and all(
      np.array_equal(getattr(self, field.name), getattr(other, field.name))
      for field in dataclasses.fields(self)
    )

  __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Edits:
  """What a person changed of a study: lungs, slices, thresholds (docs/corrections.md).

  Attributes:
    lung_mask_sha256: of the voxels of a lung mask that was given, as uint8 [slice, row,
      column] of 0 and 1; None: the mask is the lung network's.
    excluded_slices: indices of the slices that were left out, ascending.
    rescored_from_sha256: of the result.json whose stored maps were scored again; None:
      the networks answered.
    thresholds_before: name to value of each threshold that was another in the result
      that was scored again.
  """

  lung_mask_sha256: str | None = None
  excluded_slices: tuple[int, ...] = ()
  rescored_from_sha256: str | None = None
  thresholds_before: Mapping[str, float | None] = dataclasses.field(
    default_factory=dict
  )

  @property
  def kinds(self) -> tuple[str, ...]:
    """What makes its numbers others than those of the networks alone; may be empty."""
    # The case threshold judges a score and does not move it.
    moved = {name for name in self.thresholds_before if 'case' not in name}
    said = {
      'lung mask given': self.lung_mask_sha256 is not None,
      'slices excluded': bool(self.excluded_slices),
      'thresholds changed': bool(moved),
    }
    return tuple(name for name, is_so in said.items() if is_so)

  def in_words(self) -> tuple[str, ...]:
    """A sentence for each thing that was edited."""
    lines = []
    if self.lung_mask_sha256 is not None:
      lines.append('The lung mask was given, not found by the lung network.')
    if self.excluded_slices:
      count = len(self.excluded_slices)
      lines.append(
        f'{count} {"slice was" if count == 1 else "slices were"} excluded from the '
        f'score: {slices_in_words(self.excluded_slices)}.'
      )
    if self.thresholds_before:
      before = ', '.join(
        f'{name} {"none" if value is None else format(value, "g")}'
        for name, value in sorted(self.thresholds_before.items())
      )
      lines.append(f'Thresholds were changed; before: {before}.')
    if self.rescored_from_sha256 is not None:
      lines.append(
        'Scored again from the stored maps of an earlier result (result.json, SHA-256 '
        f'{self.rescored_from_sha256[:12]}).'
      )
    return tuple(lines)


def slices_in_words(slices: Iterable[int]) -> str:
  """'3-7, 12' of ascending slice numbers."""
  runs: list[list[int]] = []
  for index in slices:
    if runs and index == runs[-1][1] + 1:
      runs[-1][1] = index
    else:
      runs.append([index, index])
  return ', '.join(
    f'{first}' if first == last else f'{first}-{last}' for first, last in runs
  )


@dataclasses.dataclass(frozen=True)
class CaseResult:
  """A scored study: `save` writes it, `plot` shows it, `to_dict` has its numbers.

    result = covid_tf.analyze('study/')
    result.save('result/', covid_tf.read_ct('study/'))

  Attributes:
    corona_score_cm3: Eq. 1 of the paper.
    corona_score_in_lung_cm3: the same, over voxels of the lung mask only.
    corona_score_by_slice_cm3: float64 [S]; its sum is the score.
    corona_score_by_region_cm3: the in-lung score by region: 'left', 'right',
      'apical', 'middle', 'basal'.
    case_detected: score above the case threshold; None without a threshold.
    lung_volume_cm3: volume of the lung mask.
    involved_lung_fraction: share of lung voxels with a map above its threshold
      in positive slices, in [0, 1].
    lung_outside_box_fraction: share of lung voxels outside the lung box.
    slice_probability: float32 [S]; COVID probability of every slice.
    positive_slices: indices of the slices detected positive, ascending; none that was
      excluded.
    lung_box: the crop given to the classifier.
    lung_mask: uint8 [S, rows, columns], 0 or 1.
    localization: the 3D localization map.
    thresholds: those used.
    models: who answered, lungs first.
    warnings: the volume's, and the analysis's own.
    shape, spacing_mm, voxel_volume_mm3, affine, study_uid, series_uid,
      acquisition_date, patient_key: of the volume (see CTVolume).
    software: name and version of this package.
    stored_grid: of the volume: how map and mask are stored.
    demo_models: whether demo models, trained on phantoms, made it.
    acquisition: of the volume.
    edits: what a person changed; None where nothing was.
    hu_sha256: of the CT's voxels, int16 little-endian [slice, row, column].
    densities: of the lungs and their parts, from the voxels as scanned.
    zone_score: grades of six zones by the network's map (`involved_lung_fraction` of
      each), not by a radiologist's eye.
    zone_score_by_density: the same grades by the share of dense voxels.
    repeatability: of the score, where the classifier's card says it.
    label_regions: what was measured of the regions of a label map that was given.
    lobe_score: grades of its lobes, where all five are named.
    key_planes: what `plot` shows of the CT; None of a result that was read back.
  """

  corona_score_cm3: float
  corona_score_in_lung_cm3: float
  corona_score_by_slice_cm3: np.ndarray
  corona_score_by_region_cm3: dict[str, float]
  case_detected: bool | None
  lung_volume_cm3: float
  involved_lung_fraction: float
  lung_outside_box_fraction: float
  slice_probability: np.ndarray
  positive_slices: tuple[int, ...]
  lung_box: LungBox
  lung_mask: np.ndarray
  localization: LocalizationMap
  thresholds: Thresholds
  models: tuple[ModelIdentity, ...]
  warnings: tuple[str, ...]
  shape: tuple[int, int, int]
  spacing_mm: tuple[float, float, float]
  voxel_volume_mm3: float
  affine: np.ndarray
  study_uid: str
  series_uid: str
  acquisition_date: str | None
  patient_key: str | None
  software: str
  stored_grid: volume_lib.StoredGrid | None = None
  demo_models: bool = False
  acquisition: volume_lib.Acquisition | None = None
  edits: Edits | None = None
  hu_sha256: str | None = None
  densities: lung_measures.Densities | None = None
  zone_score: lung_measures.ZoneScore | None = None
  zone_score_by_density: lung_measures.ZoneScore | None = None
  repeatability: lung_measures.Repeatability | None = None
  label_regions: lung_measures.LabelRegions | None = None
  lobe_score: lung_measures.LobeScore | None = None
  key_planes: KeyPlanes | None = dataclasses.field(default=None, compare=False)

  def to_dict(self) -> dict[str, Any]:
    """The fields of result.json (docs/results.md): numbers, texts, lists and dicts.

    json.dumps(result.to_dict())
    """
    # Here, as below: what users do with a result lies above the plain data.
    from covid_tf.storage import result_json

    return result_json.to_dict(self)

  def save(
    self, folder: str | os.PathLike[str], volume: 'volume_lib.CTVolume'
  ) -> pathlib.Path:
    """Writes what `covid-tf score` writes: all of its files, or none.

    result.save('result/', volume)

    Args:
      folder: made where it is missing; files of an earlier result are replaced.
      volume: the CT that was scored, for the pictures.

    Returns:
      The folder.

    Raises:
      errors.UsageError: the folder is no path, or the volume is another one.
      errors.OutputError: a file cannot be written; nothing changed.
    """
    from covid_tf.reports import scored_study

    return scored_study.save(folder, self, volume)

  def plot(
    self, volume: 'volume_lib.CTVolume | None' = None
  ) -> 'matplotlib.figure.Figure':
    """The key picture: slice and coronal plane with most of the score, lungs in 3D.

    result.plot().savefig('result.png')

    Args:
      volume: the CT that was scored; None: the two planes that the result kept. A
        result that was read back kept none and shows its lungs without the CT.

    Returns:
      A matplotlib figure, which notebooks show.

    Raises:
      errors.UsageError: the volume is another one.
    """
    from covid_tf.reports import notebook

    return notebook.key_figure(self, volume)

  def __repr__(self) -> str:
    demo = ', DEMO MODELS' if self.demo_models else ''
    return (
      f'<CaseResult: Corona score {self.corona_score_cm3:.1f} cm³, '
      f'{100 * self.involved_lung_fraction:.1f} % of {self.lung_volume_cm3:.0f} cm³ of '
      f'lung, {len(self.positive_slices)} of {self.shape[0]} slices positive, '
      f'{len(self.warnings)} warnings{demo}>'
    )

  def _repr_html_(self) -> str:
    from covid_tf.reports import notebook

    return notebook.html_table(self)
