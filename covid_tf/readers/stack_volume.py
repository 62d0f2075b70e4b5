"""The volume of a stack of images: decoded, in HU, what was accepted in words."""

from collections.abc import Iterable, Sequence

import numpy as np

from covid_tf import errors
from covid_tf import volume
from covid_tf.readers import chest_histogram
from covid_tf.readers import decoding
from covid_tf.readers import geometry
from covid_tf.readers import hounsfield
from covid_tf.readers import images as images_lib
from covid_tf.readers import series as series_lib
from covid_tf.readers import stacking

# Steps of so many thicknesses: more than rounding of nominal values, less than the 2
# of a series that lost every second slice.
_GAP = 1.5
# The defined term of Rescale Type for units that are not said; GDCM writes it into
# every file that had no Rescale Type.
_UNSPECIFIED = 'US'


def load_voxels(stack: stacking.Stack) -> tuple[np.ndarray, tuple[str, ...]]:
  """Decodes all slices.

  Returns:
    (int16 HU [slice, row, column], warnings with the counts of what was changed).

  Raises:
    CTReadError: pixels that cannot be trusted, or different images at one place.
  """
  layout = stack.places[0][0].require_pixels()
  shape = (len(stack.places), layout.rows, layout.columns)
  words = np.empty(shape, np.uint16)  # HU take the place of the words, one by one.
  reader = decoding.PixelReader()
  corrections = hounsfield.Corrections()
  for place, target in zip(stack.places, words):
    corrections += _load_image(reader, place[0], target)
    for copy in place[1:]:
      other = np.empty_like(target)
      _load_image(reader, copy, other)
      if not np.array_equal(target, other):
        raise stacking.conflict(stack, place)
  return words.view(np.int16), _warnings(stack, corrections)


def _load_image(
  reader: decoding.PixelReader, image: images_lib.Image, target: np.ndarray
) -> hounsfield.Corrections:
  try:
    return hounsfield.convert_to_hu(reader.read_into(image, target), image, target)
  except errors.CTReadError as error:
    raise errors.CTReadError(
      f'{image.name} (z = {image.require_plane().position[2]:.2f} mm): {error}'
    ) from None
  except OSError as error:
    raise errors.CTReadError(
      f'{image.name}: it cannot be read any more ({error.strerror}).'
    ) from None


def _warnings(
  stack: stacking.Stack, corrections: hounsfield.Corrections
) -> tuple[str, ...]:
  warnings = []
  if copies := sum(len(place) - 1 for place in stack.places):
    warnings.append(f'{copies} identical copies of slices were dropped')
  if corrections.padding:
    warnings.append(f'{corrections.padding} padding voxels were set to -1024 HU')
  if corrections.kept:
    warnings.append(
      f'{corrections.kept} voxels hold the Pixel Padding Value where it may be a '
      'measured one; they keep their HU'
    )
  if corrections.below_air:
    warnings.append(
      f'{corrections.below_air} voxels below -1024 HU were set to -1024 HU'
    )
  return tuple(warnings)


def _gaps(images: Sequence[images_lib.Image], grid: geometry.Grid) -> tuple[str, ...]:
  """Says where slices are thinner than their steps: every second one may be lost."""
  thicknesses = [image.thickness_mm for image in images if image.thickness_mm]
  step = float(np.linalg.norm(grid.affine[:3, 0]))
  thickest = max(thicknesses, default=step)
  if step <= _GAP * thickest:
    return ()
  return (
    f'slices of {thickest:g} mm lie {step:.4g} mm apart: what is between them '
    'was not imaged, or is missing',
  )


def _units(images: Sequence[images_lib.Image], not_hu: str | None) -> tuple[str, ...]:
  """What to say of the units of a DICOM series.

  Args:
    images: its images.
    not_hu: why its voxels are no HU of a chest, or None.

  Raises:
    CTReadError: its header does not say HU, and its voxels do not look so.
  """
  units = {image.require_rescale().unit for image in images} - {''}
  found = ', '.join(f"'{unit}'" for unit in sorted(units)[:4])
  if units and not_hu:
    raise errors.CTReadError(
      f'Rescale Type must be HU where the voxels do not look so, found {found}: '
      f'{not_hu}; export the CT in Hounsfield units.'
    )
  if not_hu:
    return (f'{not_hu}: is this a chest?',)
  if units - {_UNSPECIFIED}:
    return (
      f'Rescale Type is {found}; the voxels look like Hounsfield units and were '
      'read as such',
    )
  return ()


def volume_of(
  series: series_lib.Series,
  stack: stacking.Stack,
  notes: Iterable[str],
  patient_key: str | None,
) -> volume.CTVolume:
  """The volume of a series whose images are a stack.

  Args:
    series: the chosen one, without the images of other phases.
    stack: its images in order.
    notes: what was accepted so far.
    patient_key: of the patient, or None.

  Raises:
    CTReadError: pixels that cannot be trusted, or no Hounsfield units.
  """
  hu, changes = load_voxels(stack)
  images = series.images
  oddities = dict.fromkeys(note for image in images for note in image.notes)
  warnings = [
    *notes,
    *oddities,
    *stack.grid.warnings,
    *_gaps(images, stack.grid),
    *changes,
  ]
  warnings += _units(images, chest_histogram.judge(hu))
  if series.localizers:
    warnings.append(f'{len(series.localizers)} localizer(s) in the series set aside')
  if series.captures:
    warnings.append(
      f'{len(series.captures)} image(s) of the series that are no slices (screen '
      'save, dose sheet, other kind of object) set aside'
    )
  first = stack.places[0][0]
  return volume.CTVolume(
    hu=hu,
    affine=stack.grid.affine,
    study_uid=min(series.study_uids, default=''),
    series_uid=series.uid,
    warnings=tuple(warnings),
    acquisition_date=first.date,
    patient_key=patient_key,
  )
