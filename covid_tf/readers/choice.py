"""Which series of a place is meant: the clear one, or the one asked for."""

import dataclasses

from covid_tf import errors
from covid_tf.readers import consistency
from covid_tf.readers import elements
from covid_tf.readers import selection
from covid_tf.readers import series as series_lib
from covid_tf.readers import uids

# Beside a series that covers four times as much, one is a sample (a bolus test,
# a few high-resolution slices), not the study; unless it covers a chest itself: the
# lungs of an infant are about 100 mm high, a bolus test covers some centimetres.
_SHORT_SHARE = 0.25
_SHORTEST_CHEST_MM = 100.0


def choose(
    all_series: list[series_lib.Series], series_uid: str | None,
    rule: selection.Rule | None = None
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
        f'{series_lib.listing(all_series)}')
  _require_one_study(all_series)
  plausible = [series for series in all_series if not series_lib.refusal(series)]
  if not plausible:
    raise errors.CTReadError(_no_ct(all_series))
  shortest = min(
      _SHORT_SHARE * max(map(selection.extent_mm, plausible)), _SHORTEST_CHEST_MM)
  long = [series for series in plausible if selection.extent_mm(series) >= shortest]
  left = rule.applied(long) if rule else long
  if len(left) > 1:
    after = f" after the rule '{rule.text}'" if rule else ''
    raise errors.CTReadError(
        f'{len(left)} series could be meant{after}; choose one by its UID '
        f'(--series UID) or by a rule (--select, for instance thickness=thinnest):'
        f'{series_lib.listing(left if rule else all_series)}')
  short = len(plausible) - len(long)
  notes = [f'{short} much shorter series set aside'] if short else []
  if rule:
    # No free text: what describes a series stays out of results.
    what = dataclasses.replace(series_lib.summary(left[0]), descriptions=())
    notes.append(f"chosen by the rule '{rule.text}' from {len(long)} series: {what}")
  return left[0], tuple(notes)


def _no_ct(all_series) -> str:
  if len(all_series) == 1:
    consistency.refuse_broken(all_series[0].broken)
    return f'no axial CT series: {series_lib.refusal(all_series[0])}.'
  return f'no axial CT series among {len(all_series)}:{series_lib.listing(all_series)}'


def _require_one_study(all_series):
  """Two patients or studies are never a clear choice, whatever their sizes."""
  images = [image for series in all_series
            for image in series.images + series.localizers + series.captures]
  studies = {image.study_uid for image in images} - {''}
  if len(studies) > 1:
    raise errors.CTReadError(
        f'{len(studies)} studies in one place; give one study, or choose a series '
        f'by its UID (--series UID):{series_lib.listing(all_series)}')
  # What is no CT may have come from elsewhere, with the patient written otherwise.
  if series_lib.differing_patients(list(filter(series_lib.is_slice, images))):
    raise errors.CTReadError(
        'more than one patient in one place; give one study, or choose a series '
        f'by its UID (--series UID):{series_lib.listing(all_series)}')
