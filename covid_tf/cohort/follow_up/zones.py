"""What became of the six zones of the lungs: grades' shares and densities over time.

The zones are those of each result (sides, and thirds of the lungs' height), measured on
its own CT: nothing is measured again, and nothing is aligned for it.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from covid_tf import lung_measures
from covid_tf.cohort.follow_up import course
from covid_tf.storage import result_json

SIDES = ('right', 'left')
LEVELS = ('apical', 'middle', 'basal')  # From the head down, as on a picture.
LEVEL_WORDS = {'apical': 'upper', 'middle': 'middle', 'basal': 'lower'}

_Value = Callable[[result_json.StoredResult, str], float | None]


@dataclasses.dataclass(frozen=True)
class ZoneMeasure:
  """A number of each zone: its name in compare.json, title, unit, where it is read."""

  name: str
  title: str
  unit: str
  of: _Value


@dataclasses.dataclass(frozen=True)
class ZoneCourse:
  """One measure of one zone.

  Attributes:
    measure: which.
    values: one a study, earliest first.
    change: first study to last.
  """

  measure: ZoneMeasure
  values: tuple[float, ...]
  change: course.Change


def _density(part: str) -> _Value:
  def share(result: result_json.StoredResult, zone: str) -> float | None:
    if result.densities is None:
      return None
    region = result.densities.regions[zone]
    bins = region.bins_cm3['covid']
    return region.share(bins[part]) if part in bins else None

  return share


def _mean_hu(result: result_json.StoredResult, zone: str) -> float | None:
  return result.densities.regions[zone].mean_hu if result.densities else None


def _involved(result: result_json.StoredResult, zone: str) -> float | None:
  return result.zone_score.shares[zone] if result.zone_score else None


_INVOLVED = ZoneMeasure('involved_share', 'Involved, by the network', '%', _involved)
_DENSITIES = (
  ZoneMeasure('mean_density_hu', 'Mean density', 'HU', _mean_hu),
  ZoneMeasure('ground_glass_share', 'Ground glass bin', '%', _density('ground_glass')),
  ZoneMeasure(
    'consolidation_share', 'Consolidation bin', '%', _density('consolidation')
  ),
)


def zone_courses(follow_up: course.FollowUp) -> dict[str, tuple[ZoneCourse, ...]]:
  """Zone to what every study measured of it; empty where there is nothing.

  Densities are left out where the studies measured them by different schemes.
  """
  measures = (_INVOLVED, *(_DENSITIES if follow_up.same_densities else ()))
  found = {
    zone: tuple(_courses(follow_up, zone, measures)) for zone in lung_measures.ZONES
  }
  return {zone: courses for zone, courses in found.items() if courses}


def _courses(follow_up: course.FollowUp, zone: str, measures):
  for measure in measures:
    values = [measure.of(point.result, zone) for point in follow_up.points]
    known = [value for value in values if value is not None]
    if len(known) == len(values):
      yield ZoneCourse(measure, tuple(known), course.change(known[0], known[-1]))


def to_dict(follow_up: course.FollowUp) -> dict[str, Any]:
  """The field `zones` of compare.json."""
  return {
    zone: {
      part.measure.name: {
        'by_study': list(part.values),
        'first_to_last': dataclasses.asdict(part.change),
      }
      for part in courses
    }
    for zone, courses in zone_courses(follow_up).items()
  }
