"""The order of a series' images: one place a slice, copies told from conflicts."""

import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib
from covid_tf.readers import phases

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


def stack(images, tilt_allowed: bool = False) -> Stack:
  """Sorts images of one orientation along their normal.

  Raises:
    CTReadError: one UID at two places, images that overlap sideways, or places
      that make no even grid.
  """
  places = phases.at_places(images)
  for place in places:
    _require_one_place(place)
  _require_distinct_uids(places)
  grid = geometry.grid([place[0].plane for place in places])
  if not tilt_allowed:
    geometry.require_upright(grid.tilt_deg)
  return Stack(tuple(map(tuple, places)), grid)


def conflict(stacked: Stack, place) -> errors.CTReadError:
  """What to say of different images at one place: phases, most often."""
  several = sum(len(images) > 1 for images in stacked.places)
  if rounded := _rounded(stacked, several):
    return errors.CTReadError(rounded)
  return errors.CTReadError(
      f'{several} of {len(stacked.places)} slice positions hold different images '
      f'(first at z = {place[0].plane.position[2]:.2f} mm): '
      f'{phases.described(stacked.places)}')


def _rounded(stacked: Stack, several: int) -> str | None:
  """Why thin slices share a position now and then: rounding, or None.

  Phases share all positions, or those of the range that was scanned twice.
  """
  if several < _SURELY_ROUNDED or several == len(stacked.places):
    return None
  return geometry.rounding(np.array([
      image.plane.position for place in stacked.places for image in place]))


def _require_one_place(place):
  positions = np.array([image.plane.position for image in place])
  if np.ptp(positions, axis=0).max() > 2 * geometry.SAME_PLACE_MM:
    raise errors.CTReadError(
        f'{len(place)} images at z = {positions[0, 2]:.2f} mm lie beside each other '
        'in their plane; one image a position is required.')


def _require_distinct_uids(places):
  seen = {}
  for place in places:
    for image in place:
      key = (image.image_uid, image.frame)
      if image.image_uid and seen.setdefault(key, place) is not place:
        raise errors.CTReadError(
            f'the SOP Instance UID {image.image_uid} stands in images at '
            f'z = {seen[key][0].plane.position[2]:.2f} and '
            f'{image.plane.position[2]:.2f} mm; each image needs its own.')
