"""The order of a series' images: one place a slice, copies, conflicts and phases."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

import numpy as np

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib

# Several images at one place: what distinguishes them, and which are to be read.

# Values that grow from image to image: phases are separated at the gaps in them.
_TIMES = frozenset(
  (
    'TriggerTime',
    'AcquisitionTime',
    'AcquisitionDateTime',
    'FrameAcquisitionDateTime',
    'ContentTime',
  )
)
_CLOCK = re.compile(r'(\d{8})?(\d\d)(\d\d)(\d\d(?:\.\d*)?)')
_LISTED_VALUES = 8
_LISTED_WAYS = 4
# Two acquisitions that follow each other share so many places, phases more.
_MOST_SHARED = 2
_MOST_SHARED_FRACTION = 0.25


# For each place along the normal the images found there.
_Places = Sequence[Sequence[images_lib.Image]]
# The images that have one value of a field.
_Part = tuple[str, tuple[images_lib.Image, ...]]


@dataclasses.dataclass(frozen=True)
class Way:
  """One header field that parts images so that each part has one a place.

  Attributes:
    keyword: DICOM keyword of the field.
    parts: (value, images), in order of the values; of times the first one.
  """

  keyword: str
  parts: tuple[_Part, ...]

  def __str__(self) -> str:
    found = [f'{value} ({len(part)} slices)' for value, part in self.parts]
    more = len(found) - _LISTED_VALUES
    name = 'acquisitions' if self.keyword == 'AcquisitionNumber' else self.keyword
    return f'{name} ' + ', '.join(
      found[:_LISTED_VALUES] + ([f'and {more} more'] if more > 0 else [])
    )


def at_places(images: Iterable[images_lib.Image]) -> list[list[images_lib.Image]]:
  """Images with a plane, grouped by their place along the normal, lowest first."""
  placed = [image for image in images if image.plane]
  if not placed:
    return []
  heights = geometry.heights_mm([image.require_plane() for image in placed])
  order = np.argsort(heights, kind='stable')
  places = [[placed[order[0]]]]
  for before, index in zip(order, order[1:]):
    if heights[index] - heights[before] < geometry.SAME_PLACE_MM:
      places[-1].append(placed[index])
    else:
      places.append([placed[index]])
  return places


def ways(places: _Places) -> list[Way]:
  """All fields that distinguish images at one place, the most certain first."""
  found = (_way(places, keyword) for keyword in elements.MARKS)
  return [way for way in found if way]


def described(places: _Places) -> str:
  """What distinguishes the images and how one phase is chosen, as text."""
  found = ways(places)
  if not found:
    return (
      'nothing in the headers distinguishes them; export each phase or '
      'reconstruction as a series of its own.'
    )
  first = found[0]
  value = first.parts[0][0]
  shared = (
    '; they share these positions only, so the phase that you choose decides '
    'whose image is read there'
    if _share_few(places)
    else ''
  )
  return (
    'distinguished by '
    + '; or by '.join(map(str, found[:_LISTED_WAYS]))
    + shared
    + '; choose one by its number in the first list (phase=1, --phase 1) or by a '
    f'value (--phase {first.keyword}={value}), or export each phase or '
    'reconstruction as a series of its own.'
  )


def require_phase(text: str | None) -> None:
  """Raises UsageError for a phase that is neither a number nor KEYWORD=VALUE."""
  if text is None or text.isdecimal() and int(text) > 0:
    return
  keyword, _, value = text.partition('=')
  if not value.strip() or _keyword(keyword) is None:
    raise errors.UsageError(
      f'phase {elements.printable(text)}: a number from 1 or KEYWORD=VALUE is '
      f'required, with one of the keywords {", ".join(elements.MARKS)}.'
    )


def chosen(
  images: Sequence[images_lib.Image], text: str | None
) -> tuple[tuple[images_lib.Image, ...], tuple[str, ...]]:
  """The images of the phase that is asked for.

  Args:
    images: of one series.
    text: 'N' for the N-th phase as messages list them, 'KEYWORD=VALUE', or None.

  Returns:
    (images, notes). Where two acquisitions follow each other and share a place or
    two, the others' images stay but for those places. An image whose place is unknown
    is among them if it may be one of the phase, so that it is refused, not lost.

  Raises:
    CTReadError: there is no such phase; lists those that there are.
  """
  if text is None:
    return tuple(images), ()
  places = at_places(images)
  keyword, value, part = (
    _by_number(places, int(text))
    if text.isdecimal()
    else _by_value(places, images, *text.split('=', 1))
  )
  name = f'{keyword}={value}'
  if not _share_few(places):
    return (*part, *_unplaced(images, part, keyword)), (
      f'{len(part)} of {len(images)} images of the series were read, those '
      f'of the phase {name} as asked',
    )
  kept = set(map(id, part))
  result = [
    image
    for place in places
    for image in place
    if id(image) in kept or not any(id(other) in kept for other in place)
  ]
  unplaced = [image for image in images if not image.plane]
  return (*result, *unplaced), (
    f'at {len(images) - len(result)} position(s) that acquisitions share, the image '
    f'of {name} was read as asked',
  )


def _unplaced(
  images: Sequence[images_lib.Image], part: Sequence[images_lib.Image], keyword: str
) -> list[images_lib.Image]:
  """Images without a plane that `part` lacks, but for those of another phase."""
  inside = set(map(id, part))
  own = {image.marks.get(keyword) for image in part}
  others = {
    image.marks.get(keyword)
    for image in images
    if image.plane and id(image) not in inside
  }
  return [
    image
    for image in images
    if not image.plane
    and id(image) not in inside
    and image.marks.get(keyword) not in others - own
  ]


def _by_number(
  places: _Places, number: int
) -> tuple[str, str, tuple[images_lib.Image, ...]]:
  found = ways(places)
  if not found:
    raise errors.CTReadError(
      f'phase {number} of this series was asked for, but nothing in its headers '
      'distinguishes phases; leave the phase out.'
    )
  parts = found[0].parts
  if number > len(parts):
    raise errors.CTReadError(
      f'phase {number} was asked for, but there are {len(parts)}: {found[0]}.'
    )
  value, part = parts[number - 1]
  return found[0].keyword, value, part


def _by_value(
  places: _Places, images: Sequence[images_lib.Image], asked: str, wanted: str
) -> tuple[str, str, tuple[images_lib.Image, ...]]:
  keyword, wanted = _keyword(asked) or elements.printable(asked), wanted.strip()
  way = _way(places, keyword)
  parts = way.parts if way else _parts(images, keyword)
  for value, part in parts:
    if _same(value, wanted):
      return keyword, value, part
  found = str(Way(keyword, parts)) if parts else f'no {keyword}'
  raise errors.CTReadError(
    f'phase {keyword}={elements.printable(wanted)} was asked for, found {found}'
    + ''.join(
      f'; or {other}'
      for other in ways(places)[:_LISTED_WAYS]
      if other.keyword != keyword
    )
    + '.'
  )


def _keyword(text: str) -> str | None:
  return next(
    (keyword for keyword in elements.MARKS if keyword.lower() == text.strip().lower()),
    None,
  )


def _same(value: str, wanted: str) -> bool:
  if value.lower() == wanted.lower():
    return True
  first, second = _number(value), _number(wanted)
  return first is not None and first == second


def _share_few(places: _Places) -> bool:
  shared = sum(len(place) > 1 for place in places)
  return 0 < shared <= min(_MOST_SHARED, _MOST_SHARED_FRACTION * len(places))


def _way(places: _Places, keyword: str) -> Way | None:
  """How a field separates the images of all places, or None if it does not."""
  images = [image for place in places for image in place]
  if not all(keyword in image.marks for image in images):
    return None
  most = max(map(len, places), default=0)
  parts = _parts(images, keyword)
  place_of = {
    id(image): number for number, place in enumerate(places) for image in place
  }
  if _tells_apart(parts, place_of, most):
    return Way(keyword, parts)
  if keyword in _TIMES:
    parts = _by_gaps(images, keyword, most)
    if _tells_apart(parts, place_of, most):
      return Way(keyword, parts)
  return None


def _parts(images: Sequence[images_lib.Image], keyword: str) -> tuple[_Part, ...]:
  by_value: dict[str, list[images_lib.Image]] = collections.defaultdict(list)
  for image in images:
    if keyword in image.marks:
      by_value[image.marks[keyword]].append(image)
  return tuple(
    (value, tuple(by_value[value])) for value in sorted(by_value, key=_order(by_value))
  )


def _order(values: Iterable[str]) -> Callable[[str], Any]:
  """Numbers by size, texts by letters."""
  if all(_number(value) is not None for value in values):
    return _number
  return str


def _tells_apart(
  parts: Sequence[_Part], place_of: Mapping[int, int], most: int
) -> bool:
  if len(parts) < 2 or len(parts) != most and min(len(part) for _, part in parts) < 2:
    return False
  return all(
    len({place_of[id(image)] for image in part}) == len(part) for _, part in parts
  )


def _by_gaps(
  images: Sequence[images_lib.Image], keyword: str, count: int
) -> tuple[_Part, ...]:
  """Images in `count` parts, between which their times have the widest gaps."""
  seconds = (_seconds(keyword, image.marks[keyword]) for image in images)
  times = [time for time in seconds if time is not None]
  if count < 2 or len(times) < len(images):
    return ()
  order = np.argsort(times, kind='stable')
  gaps = np.diff(np.array(times)[order])
  cuts = np.sort(np.argsort(-gaps, kind='stable')[: count - 1]) + 1
  return tuple(
    (images[part[0]].marks[keyword], tuple(images[index] for index in part))
    for part in np.split(order, cuts)
  )


def _seconds(keyword: str, text: str) -> float | None:
  """A time on an even scale; None if it is none.

  Trigger times are milliseconds; others are [YYYYMMDD]HHMMSS.FFFFFF (PS3.5 6.2).
  """
  if keyword == 'TriggerTime':
    return _number(text)
  found = _CLOCK.match(text)
  if not found:
    return None
  day, hours, minutes, seconds = found.groups(default='0')
  return int(day) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _number(text: str) -> float | None:
  try:
    value = float(text)
  except ValueError:
    return None
  return value if math.isfinite(value) else None


# The order of a series' images: one place a slice, copies and conflicts distinguished.

# Fewer positions shared by different images than this are no sign of rounding.
_SURELY_ROUNDED = 3


@dataclasses.dataclass(frozen=True)
class Stack:
  """The slices of a volume from the most inferior one of the patient.

  Attributes:
    places: for each slice the images found there; more than one must be equal.
    grid: where the slices lie.
  """

  places: tuple[tuple[images_lib.Image, ...], ...]
  grid: geometry.Grid


def stack(images: Iterable[images_lib.Image], tilt_allowed: bool = False) -> Stack:
  """Sorts images of one orientation along their normal.

  Raises:
    CTReadError: one UID at two places, images that overlap sideways, or places
      that make no even grid.
  """
  places = at_places(images)
  for place in places:
    _require_one_place(place)
  _require_distinct_uids(places)
  grid = geometry.even_grid([place[0].require_plane() for place in places])
  if not tilt_allowed:
    geometry.require_upright(grid.tilt_deg)
  return Stack(tuple(map(tuple, places)), grid)


def conflict(stacked: Stack, place: Sequence[images_lib.Image]) -> errors.CTReadError:
  """What to say of different images at one place: phases, most often."""
  several = sum(len(images) > 1 for images in stacked.places)
  if rounded := _rounded(stacked, several):
    return errors.CTReadError(rounded)
  return errors.CTReadError(
    f'{several} of {len(stacked.places)} slice positions hold different images '
    f'(first at z = {place[0].require_plane().position[2]:.2f} mm): '
    f'{described(stacked.places)}'
  )


def _rounded(stacked: Stack, several: int) -> str | None:
  """Why thin slices share a position now and then: rounding, or None.

  Phases share all positions, or those of the range that was scanned twice.
  """
  if several < _SURELY_ROUNDED or several == len(stacked.places):
    return None
  return geometry.rounding(
    np.array(
      [image.require_plane().position for place in stacked.places for image in place]
    )
  )


def _require_one_place(place: Sequence[images_lib.Image]) -> None:
  positions = np.array([image.require_plane().position for image in place])
  if np.ptp(positions, axis=0).max() > 2 * geometry.SAME_PLACE_MM:
    raise errors.CTReadError(
      f'{len(place)} images at z = {positions[0, 2]:.2f} mm lie beside each other '
      'in their plane; one image a position is required.'
    )


def _require_distinct_uids(places: _Places) -> None:
  seen: dict[tuple[str, int], Sequence[images_lib.Image]] = {}
  for place in places:
    for image in place:
      key = (image.image_uid, image.frame)
      if image.image_uid and seen.setdefault(key, place) is not place:
        raise errors.CTReadError(
          f'the SOP Instance UID {image.image_uid} stands in images at '
          f'z = {seen[key][0].require_plane().position[2]:.2f} and '
          f'{image.require_plane().position[2]:.2f} mm; each image needs its own.'
        )
