"""What a caller wants to have read, and which images that is, from headers alone."""

from collections.abc import Iterator
import contextlib
import dataclasses

import numpy as np

from covid_tf import errors
from covid_tf.readers import choice
from covid_tf.readers import discovery
from covid_tf.readers import elements
from covid_tf.readers import formats
from covid_tf.readers import header
from covid_tf.readers import images as images_lib
from covid_tf.readers import one_stack
from covid_tf.readers import privacy
from covid_tf.readers import series as series_lib
from covid_tf.readers import stacking


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a caller asks of the reader; see `read_ct`."""

  series_uid: str | None = None
  resample_tilt: bool = False
  ignore_frame_of_reference: bool = False
  phase: str | None = None
  rule: choice.Rule | None = None

  def __post_init__(self) -> None:
    stacking.require_phase(self.phase)
    if self.series_uid is not None and self.rule:
      raise errors.UsageError(
        'a series UID and a selection rule are given; one of them is required, or none.'
      )


def stacked(
  all_series: list[series_lib.Series], wanted: Wanted
) -> tuple[series_lib.Series, stacking.Stack, tuple[str, ...]]:
  """The series that is wanted, its images in order, and notes on the choice.

  Raises:
    CTReadError: there is no one series, or its images are no stack.
  """
  series, choice_notes = choice.choose(all_series, wanted.series_uid, wanted.rule)
  _require_no_stray(all_series, series)
  kept, phase_notes = stacking.chosen(series.images, wanted.phase)
  series = dataclasses.replace(series, images=kept)
  frame_notes = one_stack.require_one_stack(
    series, ignore_frame_of_reference=wanted.ignore_frame_of_reference
  )
  stack = stacking.stack(series.images, tilt_allowed=wanted.resample_tilt)
  return series, stack, (*choice_notes, *phase_notes, *frame_notes)


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
  """Lets only refusals out, each with the name of the study before it.

  Damaged bytes make libraries raise anything, with values of the header in the
  text and the chain, so none of it is passed on.
  """
  name = elements.printable(name)
  try:
    # Numbers of a damaged header may have no quotient; each result is checked.
    with np.errstate(all='ignore'):
      yield
  except errors.CTReadError as error:
    raise errors.CTReadError(f'{name}: {error}') from None
  except MemoryError:
    raise errors.CTReadError(f'{name}: the volume does not fit into memory.') from None
  except Exception as error:
    raise errors.CTReadError(
      f'{name}: the files are damaged or cannot be read ({type(error).__name__}).'
    ) from None


def series_of(
  found: discovery.Found, hasher: privacy.PatientHasher
) -> tuple[list[series_lib.Series], tuple[str, ...]]:
  """All series of a place, from headers alone, and notes on what was skipped."""
  images: list[images_lib.Image] = []
  broken: list[images_lib.BrokenFile] = []
  empty = 0
  others: list[str] = []
  for source in found.sources:
    empty += source.size == 0
    result = header.images_of(source, hasher)
    if isinstance(result, images_lib.BrokenFile):
      broken.append(result)
    elif result:
      images.extend(result)
    elif result is None and source.size and formats.is_named_dicom(source.name):
      others.append(source.name)
  notes = list(found.notes)
  if empty:
    notes.append(f'{empty} empty file(s) skipped')
  if others:
    notes.append(
      f'{len(others)} file(s) are called as DICOM is and are none, the first one '
      f'{elements.printable(others[0])}: skipped'
    )
  return series_lib.grouped(images, broken), tuple(notes)


def nothing_to_read(found: discovery.Found) -> errors.CTReadError:
  """The refusal of a place without one CT, which says what is there instead."""
  if found.niftis and not found.itk:
    return errors.CTReadError(
      f'{len(found.niftis)} NIfTI files in one place; give one of them.'
    )
  if found.itk:
    count = len(found.niftis) + len(found.itk)
    return errors.CTReadError(
      f'{count} volumes in one zip (NIfTI, MetaImage, NRRD); give one of them.'
    )
  if known := formats.other_format(found.sources):
    return errors.CTReadError(known)
  return errors.CTReadError(
    f'no CT images among {len(found.sources)} file(s); give a folder of DICOM '
    'CT slices, a DICOMDIR, a zip of them, or a NIfTI, MetaImage or NRRD file.'
    + ''.join(f' ({note})' for note in found.notes)
  )


def _require_no_stray(
  all_series: list[series_lib.Series], chosen: series_lib.Series
) -> None:
  """Files without a series UID may be slices of the chosen series."""
  for series in all_series:
    if series.uid or series is chosen:
      continue
    series_lib.refuse_broken(series.broken)
    if not series_lib.refusal(series) or len(series.images) == 1:
      raise errors.CTReadError(
        f'{len(series.images)} image(s) carry no Series Instance UID, beside a '
        'series that has one; they may be its slices.'
      )
