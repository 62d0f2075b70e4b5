"""Chests with and without implanted opacities, as the slabs that a classifier is asked.

The positive cases of a judge are slabs of a chest with opacities of `judge_lesions`,
the negative ones slabs of the same chest as it is. What is not known to be either, a
slab with less than 60 mm² of opacity, is kept without a label: a score needs it. So
are slabs beyond the lungs, and apart from them the half steps between slabs:
`covid-tf score` asks about both, and smooths logits over them.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import os
import pathlib
import zlib

import numpy as np
from scipy import ndimage

from covid_tf import errors
from covid_tf import readers
from covid_tf import volume
from covid_tf.analysis import lung_pieces
from covid_tf.analysis import lungs
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets import judge_lesions
from covid_tf.datasets import judge_textures
from covid_tf.datasets import single_slices
from covid_tf.datasets import stress
from covid_tf.datasets.collections import phantoms
from covid_tf.datasets.collections import study as study_lib
from covid_tf.storage import files

UNTOUCHED = -1  # The study number of a chest as it is.
_SMALLEST_LUNG_MM2 = 100.0  # Ours: slabs with less lung are not judged.
# Ours: the trachea has 2 to 5 cm², and no lung of that size is as empty.
_LARGEST_AIRWAY_MM2, _GAS_HU = 800.0, -935
# The simple rule: lung of this density after a slight blur, in cm² of a slab. Beside a
# network it says what can be had without one.
RULE_HU = (-700.0, -100.0)
RULE_BLUR_MM = 1.0

SegmentLungs = Callable[[np.ndarray, tuple[float, float, float]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Chest:
  """A chest without COVID.

  Attributes:
    name: of its folder; it stands for the patient.
    hu: int16 [slice, row, column], HU; slice 0 the lowest, rows from the front to the
      back.
    lung_mask: uint8 [slice, row, column].
    spacing_mm: between (slices, rows, columns).
    acquisition: how it was made, as far as its files say.
  """

  name: str
  hu: np.ndarray
  lung_mask: np.ndarray
  spacing_mm: tuple[float, float, float]
  acquisition: volume.Acquisition = volume.Acquisition()


def read_chest(
  path: str | os.PathLike, segment_lungs: SegmentLungs | None = None
) -> Chest:
  """Reads a chest and finds its lungs.

  Args:
    path: a CT series, as `read_ct` takes it.
    segment_lungs: int16 [slice, row, column] in HU and spacing in mm to uint8 of the
      same shape; None: classical segmentation.

  Raises:
    errors.StudyRefusedError: it cannot be read.
    errors.NoLungsError: no lungs were found in it.
  """
  path = pathlib.Path(path).resolve()
  name = path.parent.name if path.name == 'series' else path.name
  ct = readers.read_ct(path)
  study = study_lib.of_volume(ct, np.zeros(ct.shape[0], np.int8))
  mask = (segment_lungs or study_lib.segment_lungs)(study.hu, study.spacing_mm)
  affine = np.zeros((4, 4))
  affine[(2, 1, 0, 3), (0, 1, 2, 3)] = (*study.spacing_mm, 1)
  mask = lung_pieces.keep_lungs(np.array(mask, np.uint8), affine)
  _clear_trachea(mask, study.hu, study.spacing_mm[1] * study.spacing_mm[2])
  if not mask.any():
    raise errors.NoLungsError(
      f'{name}: lungs are required to judge with it, found none; leave the chest out.'
    )
  acquisition = ct.acquisition or volume.Acquisition()
  return Chest(name, study.hu, mask, study.spacing_mm, acquisition)


def _clear_trachea(mask, hu, pixel_mm2) -> None:
  """Takes pieces of slices that are plain gas out: nothing opacifies there."""
  for plane, values in zip(mask, hu):
    labels, count = ndimage.label(plane)
    if not count:
      continue
    places = np.arange(1, count + 1)
    areas_mm2 = np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm2
    middle = ndimage.median(values, labels, places)
    gas = (areas_mm2 < _LARGEST_AIRWAY_MM2) & (middle < _GAS_HU)
    plane[np.isin(labels, places[gas])] = 0


@dataclasses.dataclass(frozen=True)
class JudgedChest:
  """The slabs of a chest, as it is and with opacities, cropped to its lung box.

  Attributes:
    name: of the chest.
    acquisition: how it was made, as far as its files say.
    pixel_mm: between rows and between columns.
    thickness_mm: of a slab.
    lung_mask: uint8 [slab, row, column], of all slabs of the chest.
    hu: int16 [n, row, column], HU: its slabs as it is, then those of every study that
      show an opacity.
    slab: int32 [n], which slab of the chest each is.
    study: int32 [n], -1 for the chest as it is, else which implanted study.
    label: int8 [n], 1 with 60 mm² of opacity or more, 0 for slabs with lung of the
      chest as it is, -1 for others.
    lesion_mask: uint8 [n, row, column], where opacity takes half of the slab or more.
    amount_cm3: float64 [study], opacity in each implanted study.
    kinds: of the opacities in each study, by name, joined by '; '.
    skipped: opacities that no lung held.
    between_hu: int16 [m, row, column], HU: what lies between two slabs, half of both,
      of the chest as it is, then of every study that shows an opacity there. Without
      any where slices are taken as they are.
    between_slab: int32 [m], the lower one of the two.
    between_study: int32 [m], as `study`.
    condition: what was done to the slabs afterwards (`stress`), or ''.
  """

  name: str
  acquisition: volume.Acquisition
  pixel_mm: tuple[float, float]
  thickness_mm: float
  lung_mask: np.ndarray
  hu: np.ndarray
  slab: np.ndarray
  study: np.ndarray
  label: np.ndarray
  lesion_mask: np.ndarray
  amount_cm3: np.ndarray
  kinds: tuple[str, ...]
  skipped: int
  between_hu: np.ndarray
  between_slab: np.ndarray
  between_study: np.ndarray
  condition: str = ''

  @property
  def lesion_mm2(self) -> np.ndarray:
    """float64 [n], opacity on each slab."""
    return np.count_nonzero(self.lesion_mask, axis=(1, 2)) * np.prod(self.pixel_mm)

  def rule_cm2(self) -> np.ndarray:
    """float64 [n], the simple rule: lung between -700 and -100 HU, blurred by 1 mm."""
    blur = [RULE_BLUR_MM / step for step in self.pixel_mm]
    low, high = RULE_HU
    counts = np.empty(len(self.hu))
    for place, (plane, slab) in enumerate(zip(self.hu, self.slab)):
      smooth = ndimage.gaussian_filter(plane.astype(np.float32), blur)
      inside = (smooth > low) & (smooth < high) & (self.lung_mask[slab] != 0)
      counts[place] = np.count_nonzero(inside)
    return counts * np.prod(self.pixel_mm) / 100


def judged_chest(
  chest: Chest,
  studies: int,
  seed: int = 0,
  thickness_mm: float | None = slabs_lib.DEFAULT_THICKNESS_MM,
  amount_cm3: tuple[float, float] = judge_lesions.AMOUNT_CM3,
  textures: Sequence[judge_textures.Texture] = (),
) -> JudgedChest:
  """Implants opacities into a chest and divides it into slabs.

  Args:
    chest: without COVID.
    studies: how often it gets opacities.
    seed: of every draw, together with the chest's name.
    thickness_mm: of slabs, as `analyze` averages closer slices; None: slices as they
      are.
    amount_cm3: of opacity in a study, from and to.
    textures: of real lesions, for every second opacity.

  Raises:
    errors.NoLungsError: its lungs are too small to hold opacities.
  """
  slice_mm, row_mm, column_mm = chest.spacing_mm
  slabs = slabs_lib.divide(len(chest.hu), slice_mm, thickness_mm)
  # What a smoothed study is asked about; who smooths nothing leaves the half steps.
  asked = slabs_lib.classified(slabs, slabs_lib.DEFAULT_SMOOTHING_MM)
  lung_mask = _shares(slabs, chest.lung_mask) >= 50
  with_lung = lung_mask.sum((1, 2)) * row_mm * column_mm >= _SMALLEST_LUNG_MM2
  box = lungs.largest_box(lungs.slice_boxes(lung_mask))
  crop = (slice(None), box.rows, box.columns)
  nothing = np.zeros(chest.hu[crop].shape, np.uint8)
  parts = [_part(asked, chest.hu[crop], nothing, UNTOUCHED)]
  amounts, kinds, skipped = [], [], 0
  for number in range(studies):
    random = np.random.default_rng([seed, number, zlib.crc32(chest.name.encode())])
    found = judge_lesions.implant(
      chest.hu, chest.lung_mask, chest.spacing_mm, random, amount_cm3, textures
    )
    parts.append(_part(asked, found.hu[crop], found.lesion_mask[crop], number))
    voxels = np.count_nonzero(found.lesion_mask)
    amounts.append(voxels * slice_mm * row_mm * column_mm / 1000)
    kinds.append('; '.join(found.kinds))
    skipped += found.skipped
  together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
  area_mm2 = together['lesion_mask'].sum((1, 2), dtype=float) * row_mm * column_mm
  is_untouched = together['study'] == UNTOUCHED
  is_known = is_untouched | (area_mm2 >= phantoms.SMALLEST_LESION_MM2)
  is_known &= with_lung[together['slab']]
  return JudgedChest(
    name=chest.name,
    acquisition=chest.acquisition,
    pixel_mm=(row_mm, column_mm),
    thickness_mm=slabs.thickness_mm,
    lung_mask=np.ascontiguousarray(lung_mask[crop]).astype(np.uint8),
    label=np.where(is_known, ~is_untouched, -1).astype(np.int8),
    amount_cm3=np.array(amounts, float),
    kinds=tuple(kinds),
    skipped=skipped,
    condition='',
    **together,
  )


def _part(
  asked: slabs_lib.Averages, hu: np.ndarray, lesion_mask: np.ndarray, study: int
) -> dict[str, np.ndarray]:
  """Slabs, and what is between them: all of a chest as it is, else those with opacity.

  Args:
    asked: slabs, or half steps.
    hu, lesion_mask: [slice, row, column], cropped.
    study: its number.
  """
  shares = _shares(asked, lesion_mask)
  is_shown = shares.any((1, 2)) | (study == UNTOUCHED)
  averages = asked.average(hu, slice(None))
  # Half steps are a slab, what is between it and the next, the next slab, …
  step = 2 if isinstance(asked, slabs_lib.HalfSteps) else 1
  is_slab = np.arange(asked.count) % step == 0
  places, between = (np.flatnonzero(is_shown & of) for of in (is_slab, ~is_slab))
  return {
    'hu': averages[places],
    'slab': (places // step).astype(np.int32),
    'study': np.full(len(places), study, np.int32),
    'lesion_mask': (shares[places] >= 50).astype(np.uint8),
    'between_hu': averages[between],
    'between_slab': (between // step).astype(np.int32),
    'between_study': np.full(len(between), study, np.int32),
  }


def _shares(slabs: slabs_lib.Averages, mask: np.ndarray) -> np.ndarray:
  """int16 [slab, row, column]: how much of a slab is in the mask, in percent."""
  return slabs.average(mask.astype(np.int16) * np.int16(100), slice(None))


def stressed(
  judged: JudgedChest, condition: str, change: stress.Change, seed: int = 0
) -> JudgedChest:
  """The same slabs as another scanner would show them.

  Args:
    judged: the slabs.
    condition: what the change is called.
    change: as in `stress.CONDITIONS`.
    seed: of noise, together with the chest's name.
  """
  random = np.random.default_rng([seed, zlib.crc32(judged.name.encode())])
  hu, between_hu = (
    change(slices, judged.pixel_mm, random) for slices in (judged.hu, judged.between_hu)
  )
  return dataclasses.replace(judged, condition=condition, hu=hu, between_hu=between_hu)


def read_texture(path: str | os.PathLike) -> judge_textures.Texture:
  """The density of the largest opacity of a single slice (`single_slices`).

  Raises:
    errors.UsageError: it is no axial slice with millimetres, or shows no opacity.
  """
  try:
    hu, pixel_mm = single_slices.read_slice(pathlib.Path(path))
    if not pixel_mm:
      raise errors.CTReadError(f'{path}: millimetres between pixels are required.')
    mask = study_lib.segment_slice_lungs(hu, pixel_mm)
    return judge_textures.texture_of(hu, mask, pixel_mm)
  except (errors.StudyRefusedError, OSError) as error:
    raise errors.UsageError(f'texture of {path}: {error}') from error


THICK_MM = 10.0  # The upper end of the paper's slices (5 to 10 mm).


@dataclasses.dataclass(frozen=True)
class Wanted:
  """How chests are implanted and asked.

  Attributes:
    studies: how often each chest gets opacities.
    seed: of every draw, together with the chest's name.
    thickness_mm: of slabs; None: slices as they are.
    amount_cm3: of opacity in a study, from and to.
    textures: of real lesions, for every second opacity.
    stress: also with other kernels, dose and thickness.
  """

  studies: int = 10
  seed: int = 0
  thickness_mm: float | None = slabs_lib.DEFAULT_THICKNESS_MM
  amount_cm3: tuple[float, float] = judge_lesions.AMOUNT_CM3
  textures: tuple[judge_textures.Texture, ...] = ()
  stress: bool = False


def prepare(
  paths: Sequence[str | os.PathLike],
  wanted: Wanted,
  segment_lungs: SegmentLungs | None = None,
) -> Iterator[JudgedChest]:
  """Judged slabs of chests, one chest in memory at a time.

  Args:
    paths: CT series, or files that `write` wrote; these are as they were drawn, with
      other kernels and doses where asked for, and no other thickness.
    wanted: how they are implanted.
    segment_lungs: as of `read_chest`.

  Yields:
    Each chest, then the same under each condition.

  Raises:
    errors.UsageError: two chests have one name, or a file of slabs is damaged.
    errors.StudyRefusedError: a chest cannot be read, or shows no lungs.
  """
  names: set[str] = set()
  for path in map(pathlib.Path, paths):
    chest = None
    if path.suffix == SUFFIX:
      judged = read(path)
    else:
      chest = read_chest(path, segment_lungs)
      judged = _implanted(chest, wanted, wanted.thickness_mm)
    if judged.name in names:
      raise errors.UsageError(
        f'{path}: chests of different names are required, found {judged.name} twice; '
        'a name stands for a patient.'
      )
    names.add(judged.name)
    yield judged
    if not wanted.stress:
      continue
    for condition, change in stress.CONDITIONS.items():
      yield stressed(judged, condition, change, wanted.seed)
    if chest is not None and judged.thickness_mm < THICK_MM:
      thick = _implanted(chest, wanted, THICK_MM)
      yield dataclasses.replace(thick, condition='thicker slabs')


def _implanted(chest, wanted, thickness_mm):
  return judged_chest(
    chest, wanted.studies, wanted.seed, thickness_mm, wanted.amount_cm3, wanted.textures
  )


# Kept in files: several networks are asked about the same slabs.

SUFFIX = '.npz'
_PACKED = ('lung_mask', 'lesion_mask')


def write(judged: JudgedChest, folder: str | os.PathLike) -> pathlib.Path:
  """Writes `<folder>/<name>.npz`, whole or not at all.

  Raises:
    errors.OutputError: it cannot be written.
  """
  path = pathlib.Path(folder) / f'{judged.name}{SUFFIX}'
  content = {
    field.name: getattr(judged, field.name) for field in dataclasses.fields(judged)
  }
  for name in _PACKED:
    content[name] = np.packbits(content[name], axis=2)
  content['acquisition'] = json.dumps(dataclasses.asdict(judged.acquisition))
  content['kinds'] = np.array(judged.kinds, str)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.replacing(path) as file:
    np.savez(file, **content)
  return path


def read(path: str | os.PathLike) -> JudgedChest:
  """Reads what `write` wrote.

  Raises:
    errors.UsageError: the file is none, or is damaged.
  """
  path = pathlib.Path(path)
  try:
    with np.load(path, allow_pickle=False) as stored:
      content = {name: stored[name] for name in stored.files}
    columns = content['hu'].shape[2]
    for name in _PACKED:
      content[name] = np.unpackbits(content[name], axis=2)[..., :columns]
    acquisition = volume.Acquisition(**json.loads(str(content['acquisition'])))
    return JudgedChest(
      **content
      | {
        'name': str(content['name']),
        'acquisition': acquisition,
        'pixel_mm': tuple(map(float, content['pixel_mm'])),
        'thickness_mm': float(content['thickness_mm']),
        'kinds': tuple(map(str, content['kinds'])),
        'skipped': int(content['skipped']),
        'condition': str(content['condition']),
      }
    )
  except (OSError, ValueError, EOFError, KeyError, TypeError, IndexError) as error:
    raise errors.UsageError(
      f'{path}: slabs of a judged chest are required, as tools/evaluate.py keeps them; '
      f'found a file that is none ({type(error).__name__}); write it again.'
    ) from error
