"""What all slices of a series must share before they are one volume."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib
from covid_tf.readers import series as series_lib

_SAME_COSINE = 1e-3
_SAME_SPACING = 1e-4  # Relative: 0.05 mm over a field of view of 500 mm.


def require_one_stack(
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
  series_lib.refuse_broken(series.broken)
  reason = series_lib.refusal(series)
  if reason and not images:
    raise errors.CTReadError(f'no axial CT series: {reason}.')
  bad = [image for image in images if image.problems]
  if bad:
    raise errors.CTReadError(
      f'{bad[0].name}: {bad[0].problems[0]} ({len(bad)} of {len(images)} slices).'
    )
  if reason:
    raise errors.CTReadError(f'no axial CT series: {reason}.')
  _require_same(images, 'study', lambda image: image.study_uid)
  _require_whole_concatenations(images)
  frames = len({image.frame_of_reference for image in images} - {''})
  if frames > 1 and not ignore_frame_of_reference:
    raise errors.CTReadError(
      f'one frame of reference is required, the slices of this series have {frames}; '
      'if their positions are known to belong together, ask to ignore it '
      '(ignore_frame_of_reference=True, --ignore-frame-of-reference).'
    )
  if series_lib.differing_patients(images):
    raise errors.CTReadError(
      'one patient is required, the slices of this series belong to several.'
    )
  _require_one_size(images)
  _require_one_orientation(images)
  _require_one_reconstruction(images)
  if frames < 2:
    return ()
  return (
    f'the slices have {frames} Frame of Reference UIDs, ignored as asked: their '
    'positions were taken as those of one',
  )


def _require_same(
  images: Sequence[images_lib.Image],
  what: str,
  value: Callable[[images_lib.Image], str],
) -> None:
  count = len({value(image) for image in images} - {''})
  if count > 1:
    raise errors.CTReadError(
      f'one {what} is required, the slices of this series have {count}.'
    )


def _require_whole_concatenations(images: Sequence[images_lib.Image]) -> None:
  """Of a multi-frame image that was split into files, all of them are there."""
  parts: dict[str, set[images_lib.ConcatenationPart]] = collections.defaultdict(set)
  for image in images:
    if image.part:
      parts[image.part.uid].add(image.part)
  for found in parts.values():
    numbers = {part.number for part in found}
    total = max(*(part.total for part in found), *numbers)
    missing = [number for number in range(1, total + 1) if number not in numbers]
    if missing:
      raise errors.CTReadError(
        f'{len(missing)} of {total} files of a multi-frame image (concatenation) are '
        f'missing, the first one number {missing[0]}; copy the series again.'
      )


def _require_one_size(images: Sequence[images_lib.Image]) -> None:
  layouts = [image.require_pixels() for image in images]
  sizes = collections.Counter((layout.rows, layout.columns) for layout in layouts)
  if len(sizes) > 1:
    found = ', '.join(
      f'{rows} x {columns} ({count} slices)'
      for (rows, columns), count in sizes.most_common(4)
    )
    raise errors.CTReadError(f'one image size is required, found {found}.')
  spacings = np.array([image.require_plane().spacing_mm for image in images])
  if (np.ptp(spacings, axis=0) > _SAME_SPACING * spacings.min(axis=0)).any():
    low, high = spacings.min(), spacings.max()
    raise errors.CTReadError(
      f'one pixel spacing is required, found {low:.4g} to {high:.4g} mm.'
    )


def _require_one_orientation(images: Sequence[images_lib.Image]) -> None:
  planes = [image.require_plane() for image in images]
  cosines = np.array([plane.row_direction + plane.column_direction for plane in planes])
  usual = np.median(cosines, axis=0)
  off = np.abs(cosines - usual).max(axis=1)
  if off.max() > _SAME_COSINE:
    worst = planes[int(np.argmax(off))]
    raise errors.CTReadError(
      'one orientation is required, '
      f'{np.count_nonzero(off > _SAME_COSINE)} of {len(images)} slices lie '
      f'otherwise, the first at z = {worst.position[2]:.2f} mm.'
    )
  if not all(map(series_lib.is_axial, images)):
    raise errors.CTReadError('axial slices are required.')


def _require_one_reconstruction(images: Sequence[images_lib.Image]) -> None:
  """Two kernels or thicknesses between each other's slices are two volumes.

  One after the other they may be one stack. Acquisition numbers do not count:
  scanners start new ones within a stack.
  """
  heights = geometry.heights_mm([image.require_plane() for image in images])
  for what, keyword, values in (
    ('kernel', 'ConvolutionKernel', [image.kernel for image in images]),
    ('slice thickness', 'SliceThickness', [image.thickness_mm for image in images]),
  ):
    kinds: dict[Any, list[float]] = collections.defaultdict(list)
    for value, height in zip(values, heights):
      if value:
        kinds[value].append(height)
    if _interleaved(kinds.values()):
      found = ', '.join(f'{kind} ({len(kinds[kind])} slices)' for kind in sorted(kinds))
      raise errors.CTReadError(
        f'{len(kinds)} reconstructions in one series, distinguished by {what}: '
        f'{found}; choose one (--phase {keyword}={min(kinds)}), or export each as a '
        'series of its own.'
      )


def _interleaved(groups: Iterable[Sequence[float]]) -> bool:
  highest = -np.inf
  for group in sorted(groups, key=min):
    if min(group) < highest:
      return True
    highest = max(highest, max(group))
  return False
