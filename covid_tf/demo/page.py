"""index.html: every phantom's truth beside its result, with links to the reports."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from covid_tf import files
from covid_tf import readers
from covid_tf.datasets import phantom_truth
from covid_tf.demo import agreement
from covid_tf.demo import figures
from covid_tf.demo import layout
from covid_tf.reports import pages
from covid_tf.reports import pictures

_COLUMNS = 220  # Of a thumbnail.
_MARGIN_MM = 12
_QUALITY = 60


@dataclasses.dataclass(frozen=True)
class Thumbnail:
  """One axial slice: the CT, the map found, the lesions' true outline.

  Attributes:
    grey_uri, heat_uri: images, as data URIs; heat_uri may be ''.
    lesion_path: SVG path of the true lesions, in tenths of a millimetre.
    width, height: of the picture, millimetres.
    index: of the slice, 0 the lowest.
  """

  grey_uri: str
  heat_uri: str
  lesion_path: str
  width: float
  height: float
  index: int


def thumbnail(folder: layout.DemoFolder, name: str) -> Thumbnail:
  """The slice with most lesion; the one with most lung where there is none.

  Args:
    folder: the demo's.
    name: of a scored case.

  Raises:
    errors.CovidTFError: a file is absent or damaged.
  """
  volume = readers.read_ct(folder.study(name))
  truth = folder.truth(name)
  lung = phantom_truth.read_mask(truth / phantom_truth.LUNG_MASK_NAME)
  lesion = phantom_truth.read_mask(truth / phantom_truth.LESION_MASK_NAME)
  shown = lesion if lesion.any() else lung
  index = int(shown.sum((1, 2)).argmax())
  found = phantom_truth.read_mask(folder.result(name) / 'localization.nii.gz')[index]
  step_mm = row_mm, column_mm = volume.spacing_mm[1:]
  window = _around(lung, step_mm)
  grey = pictures.lung_window(volume.hu[index][window])
  height, width = grey.shape[0] * row_mm, grey.shape[1] * column_mm
  return Thumbnail(
      pictures.grey_uri(grey, (round(_COLUMNS * height / width), _COLUMNS), _QUALITY),
      pictures.heat_uri(found[window], step_mm, _COLUMNS) if found.any() else '',
      pictures.outline(lesion[index][window], step_mm), width, height, index)


def write_page(
    folder: layout.DemoFolder, cases: Sequence[agreement.CaseAgreement],
    thumbnails: dict[str, Thumbnail]) -> None:
  """Writes index.html.

  Args:
    folder: the demo's.
    cases: the scored phantoms, in the order of the table.
    thumbnails: one a case, by name.

  Raises:
    errors.OutputError: it cannot be written.
  """
  named = figures.figures(cases)
  files.write_atomically(folder.page, pages.render(
      'demo.html', cases=cases, thumbnails=thumbnails, figures=named,
      required=figures.REQUIRED, demo_models=True))


def _around(mask, step_mm):
  """Rows and columns of all lung, with a margin."""
  window = []
  for axis, step in zip((1, 2), step_mm):
    used = np.flatnonzero(mask.any(axis=(0, 3 - axis)))
    margin = round(_MARGIN_MM / step)
    window.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
  return tuple(window)
