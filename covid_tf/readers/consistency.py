"""What all slices of a series must share before they are one volume."""

import collections

import numpy as np

from covid_tf import errors
from covid_tf.readers import geometry
from covid_tf.readers import series as series_lib

_SAME_COSINE = 1e-3
_SAME_SPACING = 1e-4  # Relative: 0.05 mm over a field of view of 500 mm.


def require(
    series: series_lib.Series, *, ignore_frame_of_reference: bool = False
) -> tuple[str, ...]:
  """Raises CTReadError for the first thing that makes it no single stack.

  Args:
    series: the chosen one.
    ignore_frame_of_reference: read positions of several frames of reference as if
      they were of one, because somebody says that they are.

  Returns:
    What a person should know.
  """
  images = series.images
  refuse_broken(series.broken)
  reason = series_lib.refusal(series)
  if reason and not images:
    raise errors.CTReadError(f'no axial CT series: {reason}.')
  bad = [image for image in images if image.problems]
  if bad:
    raise errors.CTReadError(
        f'{bad[0].name}: {bad[0].problems[0]} ({len(bad)} of {len(images)} slices).')
  if reason:
    raise errors.CTReadError(f'no axial CT series: {reason}.')
  _require_same(images, 'study', lambda image: image.study_uid)
  frames = len({image.frame_of_reference for image in images} - {''})
  if frames > 1 and not ignore_frame_of_reference:
    raise errors.CTReadError(
        f'one frame of reference is required, the slices of this series have {frames}; '
        'if their positions are known to belong together, ask to ignore it '
        '(ignore_frame_of_reference=True, --ignore-frame-of-reference).')
  if series_lib.differing_patients(images):
    raise errors.CTReadError('one patient is required, the slices of this series '
                             'belong to several.')
  _require_one_size(images)
  _require_one_orientation(images)
  _require_one_reconstruction(images)
  if frames < 2:
    return ()
  return (f'the slices have {frames} Frame of Reference UIDs, ignored as asked: their '
          'positions were taken as those of one',)


def refuse_broken(broken) -> None:
  """Raises CTReadError if there are files that lost their image."""
  if broken:
    remedy = broken[0].remedy or 'copy the study again'
    raise errors.CTReadError(
        f'{len(broken)} DICOM file(s) are no complete image, so slices may be '
        f'missing: {broken[0].name}: {broken[0].reason}; {remedy}, or move the file '
        'away if it is no slice.')


def _require_same(images, what: str, value):
  count = len({value(image) for image in images} - {''})
  if count > 1:
    raise errors.CTReadError(
        f'one {what} is required, the slices of this series have {count}.')


def _require_one_size(images):
  sizes = collections.Counter(
      (image.pixels.rows, image.pixels.columns) for image in images)
  if len(sizes) > 1:
    found = ', '.join(f'{rows} x {columns} ({count} slices)'
                      for (rows, columns), count in sizes.most_common(4))
    raise errors.CTReadError(f'one image size is required, found {found}.')
  spacings = np.array([image.plane.spacing_mm for image in images])
  if (np.ptp(spacings, axis=0) > _SAME_SPACING * spacings.min(axis=0)).any():
    low, high = spacings.min(), spacings.max()
    raise errors.CTReadError(
        f'one pixel spacing is required, found {low:.4g} to {high:.4g} mm.')


def _require_one_orientation(images):
  cosines = np.array([
      image.plane.row_direction + image.plane.column_direction for image in images])
  usual = np.median(cosines, axis=0)
  off = np.abs(cosines - usual).max(axis=1)
  if off.max() > _SAME_COSINE:
    worst = images[int(np.argmax(off))]
    raise errors.CTReadError(
        'one orientation is required, '
        f'{np.count_nonzero(off > _SAME_COSINE)} of {len(images)} slices lie '
        f'otherwise, the first at z = {worst.plane.position[2]:.2f} mm.')
  if not all(map(series_lib.is_axial, images)):
    raise errors.CTReadError('axial slices are required.')


def _require_one_reconstruction(images):
  """Two kernels or thicknesses between each other's slices are two volumes.

  One after the other they may be one stack. Acquisition numbers do not count:
  scanners start new ones within a stack.
  """
  heights = geometry.heights_mm([image.plane for image in images])
  for what, keyword, value_of in (
      ('kernel', 'ConvolutionKernel', lambda image: image.kernel),
      ('slice thickness', 'SliceThickness', lambda image: image.thickness_mm)):
    kinds = collections.defaultdict(list)
    for image, height in zip(images, heights):
      if value_of(image):
        kinds[value_of(image)].append(height)
    if _interleaved(kinds.values()):
      found = ', '.join(f'{kind} ({len(kinds[kind])} slices)' for kind in sorted(kinds))
      raise errors.CTReadError(
          f'{len(kinds)} reconstructions in one series, told apart by {what}: '
          f'{found}; choose one (--phase {keyword}={min(kinds)}), or export each as a '
          'series of its own.')


def _interleaved(groups) -> bool:
  highest = -np.inf
  for group in sorted(groups, key=min):
    if min(group) < highest:
      return True
    highest = max(highest, max(group))
  return False
