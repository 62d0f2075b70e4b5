"""Which series of a place is meant: the clear one, or the one asked for."""

import numpy as np

from covid_tf import errors
from covid_tf.readers import consistency
from covid_tf.readers import elements
from covid_tf.readers import geometry
from covid_tf.readers import series as series_lib
from covid_tf.readers import uids

# Beside a series that covers four times as much, one is a sample (a bolus test,
# a few high-resolution slices), not the study; unless it covers a chest itself: the
# lungs of an infant are about 100 mm high, a bolus test covers some centimetres.
_SHORT_SHARE = 0.25
_SHORTEST_CHEST_MM = 100.0


def choose(
    all_series: list[series_lib.Series], series_uid: str | None
) -> tuple[series_lib.Series, tuple[str, ...]]:
  """The series to read, and notes on those that were set aside.

  Raises:
    CTReadError: no series is an axial CT, several are, the place holds more than
      one patient or study, or `series_uid` is not there. Lists the series.
  """
  if series_uid is not None:
    for series in all_series:
      if series.uid == uids.safe(series_uid):
        return series, ()
    raise errors.CTReadError(
        f'no series {elements.printable(series_uid)} here; found:'
        f'{listing(all_series)}')
  _require_one_study(all_series)
  plausible = [series for series in all_series if not series_lib.refusal(series)]
  if not plausible:
    raise errors.CTReadError(_no_ct(all_series))
  shortest = min(
      _SHORT_SHARE * max(map(_extent_mm, plausible)), _SHORTEST_CHEST_MM)
  long = [series for series in plausible if _extent_mm(series) >= shortest]
  if len(long) > 1:
    raise errors.CTReadError(
        f'{len(long)} series could be meant; choose one by its UID '
        f'(--series UID):{listing(all_series)}')
  short = len(plausible) - 1
  notes = (f'{short} much shorter series set aside',) if short else ()
  return long[0], notes


def listing(all_series: list[series_lib.Series]) -> str:
  """A line for each series."""
  return ''.join(
      f'\n  {series_lib.summary(series)}' for series in all_series
      if series.images or series.localizers)


def _no_ct(all_series) -> str:
  if len(all_series) == 1:
    consistency.refuse_broken(all_series[0].broken)
    return f'no axial CT series: {series_lib.refusal(all_series[0])}.'
  return f'no axial CT series among {len(all_series)}:{listing(all_series)}'


def _require_one_study(all_series):
  """Two patients or studies are never a clear choice, whatever their sizes."""
  images = [image for series in all_series
            for image in series.images + series.localizers + series.captures]
  studies = {image.study_uid for image in images} - {''}
  if len(studies) > 1:
    raise errors.CTReadError(
        f'{len(studies)} studies in one place; give one study, or choose a series '
        f'by its UID (--series UID):{listing(all_series)}')
  # What is no CT may have come from elsewhere, with the patient written otherwise.
  if series_lib.differing_patients(list(filter(series_lib.is_slice, images))):
    raise errors.CTReadError(
        'more than one patient in one place; give one study, or choose a series '
        f'by its UID (--series UID):{listing(all_series)}')


def _extent_mm(series: series_lib.Series) -> float:
  planes = [image.plane for image in series.images
            if image.plane and series_lib.is_axial(image)]
  return float(np.ptp(geometry.heights_mm(planes)))
