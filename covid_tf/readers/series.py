"""Images grouped into series, and what a list of series shows of each."""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import math
import re

import numpy as np

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib
from covid_tf.readers import privacy

_LOCALIZER_WORDS = frozenset(('LOCALIZER', 'SCOUT', 'TOPOGRAM', 'SCANOGRAM'))
# Brightest or darkest values along rays, and pictures of surfaces: no tissue has
# these Hounsfield units.
_RENDERED_WORDS = frozenset(
  (
    'MIP',
    'MINIP',
    'MAX',
    'MIN',
    'MAXIP',
    'RENDER',
    'RENDERING',
    'VRT',
    'SSD',
    'SUBTRACTION',
  )
)
# Pictures of a screen, dose sheets and the like that writers put among the slices.
_CAPTURE_WORDS = frozenset(
  (
    'SCREEN',
    'SCREENSAVE',
    'SCREENSHOT',
    'CAPTURE',
    'SNAPSHOT',
    'DOSE',
    'PROTOCOL',
    'REPORT',
  )
)
_DECIMAL = re.compile(r'-?\d{1,9}(\.\d{1,9})?')
_AXIAL_WITHIN_DEG = 25.0
_MOST_UNMARKED_LOCALIZERS = 3
# So few axial images among others are reference pictures, no stack.
_MOST_STRAY_AXIAL = 3


@dataclasses.dataclass(frozen=True)
class Series:
  """The images that carry one series UID.

  Attributes:
    uid: Series Instance UID, '' if the images have none.
    images: without localizers and captures, in the order of their files.
    localizers: images set aside as such.
    broken: files of the series that are no complete image.
    captures: images set aside as secondary captures, screen saves or dose sheets.
  """

  uid: str
  images: tuple[images_lib.Image, ...]
  localizers: tuple[images_lib.Image, ...]
  broken: tuple[images_lib.BrokenFile, ...]
  captures: tuple[images_lib.Image, ...] = ()

  @property
  def study_uids(self) -> set[str]:
    """Study Instance UIDs of all images, without missing ones."""
    return {image.study_uid for image in self.images + self.localizers} - {''}


@dataclasses.dataclass(frozen=True)
class SeriesSummary:
  """A series as a list shows it; nothing in it names the patient.

  Attributes:
    series_uid, study_uid: UIDs, '' if missing.
    modality: 'CT', …
    slices: images without localizers.
    spacing_mm: (slice, row, column); None where the slices make no even grid.
    thickness_mm: nominal slice thicknesses that occur.
    kernels: convolution kernels that occur.
    acquisitions: acquisition numbers that occur.
    refusal: why it is no axial CT volume; None for one that may be read.
    numbers: series numbers that occur.
    descriptions: series descriptions, printable, without the patient's name, ID and
      birth date.
    kvp: tube voltages that occur.
    image_types: image types that occur, as 'ORIGINAL/PRIMARY/AXIAL'.
  """

  series_uid: str
  study_uid: str
  modality: str
  slices: int
  spacing_mm: tuple[float, float, float] | None
  thickness_mm: tuple[float, ...]
  kernels: tuple[str, ...]
  acquisitions: tuple[str, ...]
  refusal: str | None
  numbers: tuple[float, ...] = ()
  descriptions: tuple[str, ...] = ()
  kvp: tuple[float, ...] = ()
  image_types: tuple[str, ...] = ()

  def __str__(self) -> str:
    spacing = (
      'no even spacing'
      if self.spacing_mm is None
      else ' x '.join(f'{step:.4g}' for step in self.spacing_mm) + ' mm'
    )
    thickness = '/'.join(f'{value:g}' for value in self.thickness_mm) or '?'
    return (
      f'series {self.series_uid or "(no UID)"}: {self.slices} '
      f'{self.modality or "?"} slices, {spacing}, thickness {thickness} mm, '
      f'kernel {" and ".join(self.kernels) or "?"}'
      + ''.join(f', number {value:g}' for value in self.numbers[:1])
      + ''.join(f", '{text}'" for text in self.descriptions[:2])
      + (f', {"/".join(f"{value:g}" for value in self.kvp)} kV' if self.kvp else '')
      + ''.join(f', {text}' for text in self.image_types[:2])
      + (
        f', acquisitions {", ".join(self.acquisitions)}'
        if len(self.acquisitions) > 1
        else ''
      )
      + (f' ({self.refusal})' if self.refusal else '')
    )


def grouped(
  images: Iterable[images_lib.Image], broken: Iterable[images_lib.BrokenFile]
) -> list[Series]:
  """All series of a place, in order of their UID."""
  whole: dict[str, list[images_lib.Image]] = collections.defaultdict(list)
  lost: dict[str, list[images_lib.BrokenFile]] = collections.defaultdict(list)
  for image in images:
    whole[image.series_uid].append(image)
  for file in broken:
    lost[file.series_uid].append(file)
  return [
    _series(uid, whole.get(uid, []), lost.get(uid, []))
    for uid in sorted(whole.keys() | lost.keys())
  ]


def _series(
  uid: str, images: Sequence[images_lib.Image], broken: Sequence[images_lib.BrokenFile]
) -> Series:
  marked = [image for image in images if _has_word(image, _LOCALIZER_WORDS)]
  rest = [image for image in images if not _has_word(image, _LOCALIZER_WORDS)]
  captures = _captures(rest)
  rest = _without(rest, captures)
  unmarked = _unmarked_localizers(rest)
  kept = _without(rest, unmarked)
  return Series(
    uid, tuple(kept), tuple(marked + unmarked), tuple(broken), tuple(captures)
  )


def _without(
  images: Sequence[images_lib.Image], others: Sequence[images_lib.Image]
) -> list[images_lib.Image]:
  left_out = set(map(id, others))
  return [image for image in images if id(image) not in left_out]


def _captures(images: Sequence[images_lib.Image]) -> list[images_lib.Image]:
  """Images that carry the UID of a series of slices and cannot be slices of it.

  What says of itself that it is no slice, but lies where one of the stack may be
  missing, is not among them: then the series is refused.
  """
  marked = [image for image in images if not is_slice(image)]
  slices = _without(images, marked)
  primary = any('SECONDARY' not in image.image_type for image in slices)
  marked += [
    image
    for image in slices
    if primary and image.plane is None and 'SECONDARY' in image.image_type
  ]
  slices = [image for image in _without(images, marked) if image.plane]
  if len(marked) >= len(slices):
    return []
  return [image for image in marked if not _may_be_missing(image, slices)]


def is_slice(image: images_lib.Image) -> bool:
  """Whether nothing in its header says that an image is no CT slice."""
  return _is_ct(image) and not image.is_picture and not _has_word(image, _CAPTURE_WORDS)


def _is_ct(image: images_lib.Image) -> bool:
  return (
    not image.sop_class or image.sop_class in elements.CT_SOP_CLASSES
  ) and image.modality in ('CT', '')


def _may_be_missing(
  image: images_lib.Image, slices: Sequence[images_lib.Image]
) -> bool:
  """Whether an image lies like the slices, at a place where none of them is."""
  plane = image.plane
  if plane is None:
    return False
  if (
    image.pixels
    and slices[0].pixels
    and (
      (image.pixels.rows, image.pixels.columns)
      != (slices[0].pixels.rows, slices[0].pixels.columns)
    )
  ):
    return False
  planes = [other.require_plane() for other in slices]
  if not _one_direction([planes[0], plane]):
    return False
  *heights, own = geometry.heights_mm([*planes, plane])
  return bool(np.abs(np.array(heights) - own).min() >= geometry.SAME_PLACE_MM)


def _has_word(image: images_lib.Image, words: frozenset[str]) -> bool:
  found = ' '.join(image.image_type).replace('_', ' ').split()
  return not words.isdisjoint(found)


def _unmarked_localizers(images: Sequence[images_lib.Image]) -> list[images_lib.Image]:
  """A few images across all others: a scout whose Image Type does not say so."""
  normals = [image.plane.normal for image in images if image.plane]
  if len(normals) < 3:
    return []
  axial = [image for image in images if image.plane and is_axial(image)]
  across = [
    image
    for image in images
    if image.plane and abs(image.plane.normal[2]) < math.sqrt(0.5)
  ]
  few = min(_MOST_UNMARKED_LOCALIZERS, len(axial) // 4)
  return across if len(across) <= few else []


def is_axial(image: images_lib.Image) -> bool:
  """Whether slices run across the body, within 25 degrees, head or feet first."""
  return abs(image.require_plane().normal[2]) >= math.cos(
    math.radians(_AXIAL_WITHIN_DEG)
  )


def refusal(series: Series) -> str | None:
  """Why a series is no axial CT stack at first sight; None if it may be one."""
  images = series.images
  if not images:
    return 'only localizers' if series.localizers else 'only broken files'
  if not any(
    image.sop_class in elements.CT_SOP_CLASSES
    or not image.sop_class
    and image.modality in ('CT', '')
    for image in images
  ):
    return f'not CT: {"/".join(sorted(set(map(_kind, images))))}'
  good = [image for image in images if image.plane]
  if not good:
    return _problem(images)
  if any(_has_word(image, _RENDERED_WORDS) for image in images):
    return 'projection or rendering, not single slices'
  axial = [image for image in good if is_axial(image)]
  if not axial:
    tilt = min(
      geometry.angle_deg(image.require_plane().normal, (0, 0, sign))
      for image in good
      for sign in (1, -1)
    )
    return f'not axial: {tilt:.0f} degrees from it'
  if len(axial) <= _MOST_STRAY_AXIAL and 2 * len(axial) < len(good):
    return f'not axial: {len(good) - len(axial)} of {len(good)} images lie otherwise'
  heights = geometry.heights_mm([image.require_plane() for image in axial])
  if len(images) == 1 and images[0].problems:
    return _problem(images)
  if np.ptp(heights) < geometry.SAME_PLACE_MM:
    return (
      'a single slice, whose spacing cannot be measured'
      if len(images) == 1
      else 'all slices at one position'
    )
  if all(image.problems for image in images):
    return _problem(images)
  return None


def _kind(image: images_lib.Image) -> str:
  """What an image is: by its modality, or by its class where that says CT too."""
  if image.modality != 'CT':
    return image.modality or '?'
  return elements.sop_class_name(image.sop_class)


def _problem(images: Sequence[images_lib.Image]) -> str:
  return next(image.problems[0] for image in images if image.problems)


def differing_patients(images: Sequence[images_lib.Image]) -> bool:
  """Whether IDs, names or birth dates differ where they are given."""
  studies = {image.study_uid for image in images}
  return privacy.differ(
    (image.patient for image in images),
    one_study=len(studies) == 1 and '' not in studies,
  )


def summary(series: Series) -> SeriesSummary:
  """A series as a list shows it."""
  images = series.images or series.localizers
  return SeriesSummary(
    series_uid=series.uid,
    study_uid=min(series.study_uids, default=''),
    modality='/'.join(sorted({image.modality for image in images} - {''})),
    slices=len(series.images),
    spacing_mm=_spacing(series.images),
    thickness_mm=tuple(
      sorted({image.thickness_mm for image in images if image.thickness_mm is not None})
    ),
    kernels=tuple(sorted({image.kernel for image in images} - {''})),
    acquisitions=tuple(sorted({image.acquisition for image in images} - {''})),
    refusal=refusal(series),
    numbers=_numbers(images, 'SeriesNumber'),
    descriptions=tuple(sorted({image.description for image in images} - {''})),
    kvp=_numbers(images, 'KVP'),
    image_types=tuple(
      sorted(
        {image.marks['ImageType'] for image in images if 'ImageType' in image.marks}
      )
    ),
  )


def listing(all_series: list[Series]) -> str:
  """A line for each series."""
  return ''.join(
    f'\n  {summary(series)}'
    for series in all_series
    if series.images or series.localizers
  )


def _numbers(images: Sequence[images_lib.Image], keyword: str) -> tuple[float, ...]:
  """The numbers of a field that occur; what is no number is left out."""
  texts = {image.marks.get(keyword, '') for image in images}
  return tuple(sorted(float(text) for text in texts if _DECIMAL.fullmatch(text)))


def _spacing(images: Sequence[images_lib.Image]) -> tuple[float, float, float] | None:
  planes = [image.plane for image in images if image.plane]
  if not planes or len(planes) < len(images) or not _one_direction(planes):
    return None
  order = np.argsort(geometry.heights_mm(planes))
  try:
    affine = geometry.even_grid([planes[index] for index in order]).affine
  except errors.CTReadError:
    return None
  slices, rows, columns = np.linalg.norm(affine[:3, :3], axis=0).tolist()
  return slices, rows, columns


def _one_direction(planes: Sequence[images_lib.Plane]) -> bool:
  """Whether the images lie in parallel planes, so that an order of them means much."""
  normals = np.array([plane.normal for plane in planes])
  return bool((normals @ normals[0] > math.cos(math.radians(1))).all())


def refuse_broken(broken: Sequence[images_lib.BrokenFile]) -> None:
  """Raises CTReadError if there are files that lost their image."""
  if broken:
    remedy = broken[0].remedy or 'copy the study again'
    raise errors.CTReadError(
      f'{len(broken)} DICOM file(s) are no complete image, so slices may be '
      f'missing: {broken[0].name}: {broken[0].reason}; {remedy}, or move the file '
      'away if it is no slice.'
    )
