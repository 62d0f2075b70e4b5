"""Headers of the slices that `read_ct` reads, in the order of its volume."""

from collections.abc import Iterable
import dataclasses
import os
import pathlib

from covid_tf import errors
from covid_tf.readers import choice
from covid_tf.readers import dataset
from covid_tf.readers import discovery
from covid_tf.readers import elements
from covid_tf.readers import geometry
from covid_tf.readers import images as images_lib
from covid_tf.readers import privacy
from covid_tf.readers import wanted as wanted_lib


@dataclasses.dataclass(frozen=True)
class SliceHeaders:
  """The headers of a series' slices, in the order of its volume.

  Attributes:
    grid: where the slices lie; `tilt_deg` says how much they are sheared.
    images: [slice], from the most inferior one of the patient.
    elements: [slice], tag to raw element, of the tags that were asked for.
  """

  grid: geometry.Grid
  images: tuple[images_lib.Image, ...]
  elements: tuple[elements.Elements, ...]


def read_headers(
  path: str | os.PathLike[str],
  tags: Iterable[int],
  series_uid: str | None = None,
  *,
  phase: str | int | None = None,
  select: str | None = None,
) -> SliceHeaders:
  """Reads the headers of the slices that `read_ct` reads, without a pixel.

  A series with gantry tilt, or of several frames of reference, is read as it lies:
  whether that will do, the caller says.

  Args:
    path, series_uid, phase, select: as for `read_ct`.
    tags: of the elements to collect.

  Raises:
    CTReadError: they are no slices of one volume, or no DICOM.
    UsageError: phase or select is none, or select and series_uid are both given.
  """
  wanted = wanted_lib.Wanted(
    series_uid,
    resample_tilt=True,
    ignore_frame_of_reference=True,
    phase=None if phase is None else str(phase),
    rule=None if select is None else choice.parse(select),
  )
  path = pathlib.Path(os.fsdecode(path))
  with wanted_lib.refusing(path.name or str(path)), discovery.find(path) as found:
    return _slice_headers(found, tags, wanted)


def read_headers_of_files(
  files: Iterable[str | os.PathLike[str]],
  tags: Iterable[int],
  series_uid: str | None = None,
  *,
  name: str,
  phase: str | int | None = None,
) -> SliceHeaders:
  """The same of the slices that `read_files` reads.

  Args:
    files, name: as for `read_files`.
    tags, series_uid, phase: as for `read_headers`.

  Raises:
    CTReadError, UsageError: as for `read_headers`.
  """
  wanted = wanted_lib.Wanted(
    series_uid,
    resample_tilt=True,
    ignore_frame_of_reference=True,
    phase=None if phase is None else str(phase),
  )
  with wanted_lib.refusing(name):
    return _slice_headers(discovery.of_files(files), tags, wanted)


def _slice_headers(
  found: discovery.Found, tags: Iterable[int], wanted: wanted_lib.Wanted
) -> SliceHeaders:
  all_series, _ = wanted_lib.series_of(found, privacy.PatientHasher())
  if not all_series and (found.niftis or found.itk):
    raise errors.CTReadError(
      'a DICOM series is required, found an image without DICOM headers.'
    )
  if not all_series:
    raise wanted_lib.nothing_to_read(found)
  _, stack, _ = wanted_lib.stacked(all_series, wanted)
  images = tuple(place[0] for place in stack.places)
  layouts = [image.require_pixels() for image in images]
  asked = frozenset(tags)
  return SliceHeaders(
    stack.grid,
    images,
    tuple(dataset.elements_of(one.source, one.offset, asked) for one in layouts),
  )
