"""Which series of a place is meant: the clear one, or the one asked for."""

from collections.abc import Callable, Sequence
import dataclasses
import fnmatch
import re
from typing import TypeVar

import numpy as np

from covid_tf import errors
from covid_tf.readers import elements
from covid_tf.readers import geometry
from covid_tf.readers import series as series_lib

# A rule that picks one series of a study: `thickness=thinnest,kernel=B6*`.
#
# Conditions are applied one after the other, each to what the earlier ones left. What
# then is left must be one series: a rule narrows the choice, it never guesses.

_NUMBER = r'\d+(?:\.\d+)?'
_RANGE = re.compile(rf'({_NUMBER})\.\.({_NUMBER})')
_NEAREST = re.compile(rf'nearest:({_NUMBER})')
# Nominal thicknesses and voltages are rounded by their writers.
_SAME = 0.01
_EXAMPLES = (
  'thickness=thinnest|thickest|1.5|0.5..1.5|nearest:1, kernel=PATTERN, '
  'description=PATTERN, type=PATTERN, number=N, kvp=120, '
  'slices=most|fewest|100..999, extent=longest, newest, oldest'
)

Filter = Callable[[list[series_lib.Series]], list[series_lib.Series]]
_Numbers = Callable[[series_lib.Series], Sequence[float]]
_Value = TypeVar('_Value', float, str)
_Texts = Callable[[series_lib.Series], Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Rule:
  """Conditions in the order in which they are applied.

  Attributes:
    text: as it was given.
    conditions: (text, what it leaves of a list of series).
  """

  text: str
  conditions: tuple[tuple[str, Filter], ...]

  def applied(self, candidates: list[series_lib.Series]) -> list[series_lib.Series]:
    """What the rule leaves.

    Raises:
      CTReadError: a condition leaves nothing.
    """
    for text, condition in self.conditions:
      left = condition(candidates)
      if not left:
        raise errors.CTReadError(
          f"no series fits '{text}' of the rule '{self.text}'; left before it:"
          f'{series_lib.listing(candidates)}'
        )
      candidates = left
    return candidates


def parse(text: str) -> Rule:
  """Reads a rule.

  Raises:
    UsageError: it is none; the message shows what one looks like.
  """
  if not text.isprintable():
    raise errors.UsageError('selection rule: one printable line is required.')
  parts = [part.strip() for part in text.split(',')]
  return Rule(','.join(parts), tuple((part, _condition(part)) for part in parts))


def _condition(text: str) -> Filter:
  key, _, value = (part.strip() for part in text.partition('='))
  key = key.lower()
  condition = None
  if key in ('newest', 'oldest') and not value:
    condition = _extreme(_moment, lowest=key == 'oldest')
  elif key in _NUMBERS and value:
    condition = _number(_NUMBERS[key], value.lower())
  elif key in _TEXTS and value:
    condition = _pattern(_TEXTS[key], value)
  if condition is None:
    raise errors.UsageError(
      f"selection rule: '{elements.printable(text, 100)}' is no condition; "
      f'conditions separated by commas are required: {_EXAMPLES}.'
    )
  return condition


def _number(values_of: _Numbers, text: str) -> Filter | None:
  """A condition on numbers of a series: an extreme, one value, or a range."""
  if text in ('thinnest', 'lowest', 'fewest', 'shortest'):
    return _extreme(values_of, lowest=True)
  if text in ('thickest', 'highest', 'most', 'longest'):
    return _extreme(values_of, lowest=False)
  if found := _NEAREST.fullmatch(text):
    wanted = float(found[1])
    return _extreme(
      lambda series: [abs(value - wanted) for value in values_of(series)], lowest=True
    )
  if found := _RANGE.fullmatch(text):
    low, high = map(float, found.groups())
  elif re.fullmatch(_NUMBER, text):
    low = high = float(text)
  else:
    return None
  return lambda candidates: [
    series
    for series in candidates
    if (values := values_of(series))
    and all(low - _SAME <= value <= high + _SAME for value in values)
  ]


def _extreme(
  values_of: Callable[[series_lib.Series], Sequence[_Value]], *, lowest: bool
) -> Filter:
  """The series with the lowest or highest value; those without one are left out."""
  pick, worst = (min, max) if lowest else (max, min)

  def condition(candidates: list[series_lib.Series]) -> list[series_lib.Series]:
    values = [worst(values, default=None) for values in map(values_of, candidates)]
    known = [value for value in values if value is not None]
    if not known:
      return []
    best = pick(known)
    return [
      series
      for series, value in zip(candidates, values)
      if value is not None and _equal(value, best)
    ]

  return condition


def _equal(value: float | str, other: float | str) -> bool:
  if isinstance(value, str) or isinstance(other, str):
    return value == other
  return abs(value - other) <= _SAME


def _pattern(texts_of: _Texts, alternatives: str) -> Filter:
  """A condition on texts: `*`, `?` and `[…]`, alternatives separated by `|`."""
  patterns = [pattern.strip().casefold() for pattern in alternatives.split('|')]

  def fits(text: str) -> bool:
    return any(fnmatch.fnmatchcase(text.casefold(), pattern) for pattern in patterns)

  return lambda candidates: [
    series
    for series in candidates
    if (texts := texts_of(series)) and all(map(fits, texts))
  ]


def _moment(series: series_lib.Series) -> list[str]:
  """When the images were acquired, as sortable text."""
  return [
    f'{image.date} {image.marks.get("AcquisitionTime", "")}'
    f' {image.marks.get("SeriesTime", "")}'
    for image in series.images
    if image.date
  ]


def extent_mm(series: series_lib.Series) -> float:
  """Millimetres from the first to the last axial image."""
  planes = [
    image.plane for image in series.images if image.plane and series_lib.is_axial(image)
  ]
  return float(np.ptp(geometry.heights_mm(planes)))


_NUMBERS: dict[str, _Numbers] = {
  'thickness': lambda series: series_lib.summary(series).thickness_mm,
  'kvp': lambda series: series_lib.summary(series).kvp,
  'number': lambda series: series_lib.summary(series).numbers,
  'slices': lambda series: [len(series.images)],
  'extent': lambda series: [extent_mm(series)],
}
_TEXTS: dict[str, _Texts] = {
  'kernel': lambda series: series_lib.summary(series).kernels,
  'description': lambda series: series_lib.summary(series).descriptions,
  'type': lambda series: series_lib.summary(series).image_types,
}


# Beside a series that covers four times as much, one is a sample (a bolus test,
# a few high-resolution slices), not the study; unless it covers a chest itself: the
# lungs of an infant are about 100 mm high, a bolus test covers some centimetres.
_SHORT_SHARE = 0.25
_SHORTEST_CHEST_MM = 100.0


def choose(
  all_series: list[series_lib.Series], series_uid: str | None, rule: Rule | None = None
) -> tuple[series_lib.Series, tuple[str, ...]]:
  """The series to read, and notes on those that were set aside.

  Raises:
    CTReadError: no series is an axial CT, several are, the place holds more than
      one patient or study, or `series_uid` is not there. Lists the series.
  """
  if series_uid is not None:
    for series in all_series:
      if series.uid == elements.safe_uid(series_uid):
        return series, ()
    raise errors.CTReadError(
      f'no series {elements.printable(series_uid)} here; found:'
      f'{series_lib.listing(all_series)}'
    )
  _require_one_study(all_series)
  plausible = [series for series in all_series if not series_lib.refusal(series)]
  if not plausible:
    raise errors.CTReadError(_no_ct(all_series))
  shortest = min(_SHORT_SHARE * max(map(extent_mm, plausible)), _SHORTEST_CHEST_MM)
  long = [series for series in plausible if extent_mm(series) >= shortest]
  left = rule.applied(long) if rule else long
  if len(left) > 1:
    after = f" after the rule '{rule.text}'" if rule else ''
    raise errors.CTReadError(
      f'{len(left)} series could be meant{after}; choose one by its UID '
      f'(--series UID) or by a rule (--select, for instance thickness=thinnest):'
      f'{series_lib.listing(left if rule else all_series)}'
    )
  short = len(plausible) - len(long)
  notes = [f'{short} much shorter series set aside'] if short else []
  if rule:
    # No free text: what describes a series stays out of results.
    what = dataclasses.replace(series_lib.summary(left[0]), descriptions=())
    notes.append(f"chosen by the rule '{rule.text}' from {len(long)} series: {what}")
  return left[0], tuple(notes)


def _no_ct(all_series: list[series_lib.Series]) -> str:
  if len(all_series) == 1:
    series_lib.refuse_broken(all_series[0].broken)
    return f'no axial CT series: {series_lib.refusal(all_series[0])}.'
  return f'no axial CT series among {len(all_series)}:{series_lib.listing(all_series)}'


def _require_one_study(all_series: list[series_lib.Series]) -> None:
  """Two patients or studies are never a clear choice, whatever their sizes."""
  images = [
    image
    for series in all_series
    for image in series.images + series.localizers + series.captures
  ]
  studies = {image.study_uid for image in images} - {''}
  if len(studies) > 1:
    raise errors.CTReadError(
      f'{len(studies)} studies in one place; give one study, or choose a series '
      f'by its UID (--series UID):{series_lib.listing(all_series)}'
    )
  # What is no CT may have come from elsewhere, with the patient written otherwise.
  if series_lib.differing_patients(list(filter(series_lib.is_slice, images))):
    raise errors.CTReadError(
      'more than one patient in one place; give one study, or choose a series '
      f'by its UID (--series UID):{series_lib.listing(all_series)}'
    )
