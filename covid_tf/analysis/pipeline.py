"""The whole path of one study: lungs, probabilities and maps, score."""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias
import warnings

import numpy as np

from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import predictors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import case_score
from covid_tf.analysis import corrections
from covid_tf.analysis import coverage
from covid_tf.analysis import label_regions
from covid_tf.analysis import localization
from covid_tf.analysis import lung_masks
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.analysis import orientation
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.predictors import answers as answers_lib
from covid_tf.predictors import interface
from covid_tf.readers import arrays
from covid_tf.storage import result_json

if TYPE_CHECKING:
  import nibabel
  import SimpleITK

_COLUMNS = 80  # Of a bar where the terminal reports 0 columns.
_ROWS = 24


# What callers may say of progress: see `progress_bar`.
Progress = bool | Callable[..., Any]
# What is taken for a CT: see `arrays.as_volume`.
CT: TypeAlias = (
  'volume_lib.CTVolume | str | os.PathLike[str] | SimpleITK.Image | '
  'nibabel.filebasedimages.FileBasedImage'
)


def progress_bar(progress: Progress, *, total: int, desc: str, unit: str) -> Any:
  """A bar, a context manager with `update`.

  Args:
    progress: True: on standard error where that is a terminal or a notebook, else
      none. False: none. Or what makes a bar, as `tqdm.tqdm(total=, desc=, unit=)`.
    total: how many steps there are.
    desc: what it says before the bar.
    unit: what it counts.
  """
  if callable(progress):
    return progress(total=total, desc=desc, unit=unit)
  bar = _bar_class()
  if progress is False:
    return bar(total=total, desc=desc, unit=unit, disable=True)
  is_notebook = type(sys.stderr).__module__.startswith('ipykernel')
  columns = rows = None
  with contextlib.suppress(OSError, ValueError, AttributeError):
    # Some serial lines, containers and editors have terminals of size 0, on which
    # tqdm shows nothing.
    columns, rows = os.get_terminal_size(sys.stderr.fileno())
    columns, rows = columns or _COLUMNS, rows or _ROWS
  return bar(
    total=total,
    desc=desc,
    unit=unit,
    disable=False if is_notebook else None,
    leave=False,
    ncols=columns,
    nrows=rows,
  )


def _bar_class() -> Any:
  """tqdm's bar of a notebook in a notebook, else that of a terminal."""
  # Here: it looks at where it is imported, and warns where a notebook has no widgets,
  # in which it then draws the bar of a terminal.
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import tqdm.auto
  return tqdm.auto.tqdm


def analyze(
  volume: 'CT',
  models: interface.Models | None = None,
  *,
  thresholds: results.Thresholds | None = None,
  lung_mask: np.ndarray | None = None,
  exclude_slices: Iterable[int] = (),
  regions: label_regions.LabelMap | None = None,
  density_schemes: lung_measures.DensitySchemes | None = None,
  progress: Progress = True,
) -> results.CaseResult:
  """Finds the lungs, localizes opacities and measures them.

    result = covid_tf.analyze('study/')  # With the demo models.
    with covid_tf.load_models('exported/') as models:
      result = covid_tf.analyze(volume, models)
    print(result.corona_score_cm3)

  Args:
    volume: the CT: a CTVolume, the path of what `read_ct` reads, or a SimpleITK or
      nibabel image in Hounsfield units (see `CTVolume.from_sitk`, `from_nibabel`).
    models: None: the demo models of the package, loaded into this process for this
      study, some seconds (open `load_models()` once for several); the result says so.
      Else anything with `segment_lungs(hu)` and `grad_cam(hu)`. Where it has
      `study()` (interface.VersionedModels), the whole study is answered by one
      version of each network; where that version goes meanwhile, the study starts
      again, once.
    thresholds: of the score, the thickness that slices are averaged to and the
      smoothing along the body; None: the paper's thresholds, and thickness and
      smoothing of the classifier's card, else 5 and 6 mm.
    lung_mask: [slice, row, column] of 0 and 1, on the CT's grid, taken as it is: the
      lung network is not asked, no piece is dropped, the lung box is that of the mask.
    exclude_slices: indices of slices that count as negative, whatever the classifier
      says; their lung stays lung.
    regions: further regions to measure, such as lobes, on the CT's grid; or None.
    density_schemes: bins and percentiles of densities; None: those of the literature.
    progress: True: a bar on standard error if that is a terminal or a notebook.
      False: none. Or what makes a bar as `tqdm.tqdm(total=, desc=, unit=)` does.

  Returns:
    The scored study.

  Raises:
    errors.CTReadError: the files or the image are no CT that can be trusted.
    errors.UsageError: an argument is of another kind, the mask or the label map covers
      no lung, its names do not fit, or no slice with lung is left.
    errors.NoLungsError: there is too little lung to score.
    errors.ModelError: a model failed or answered what is no mask, probability
      or map; names the slice.
  """
  _check(models, thresholds, progress)
  score = functools.partial(
    _analyze,
    arrays.as_volume(volume),
    thresholds=thresholds or results.Thresholds(),
    lung_mask=lung_mask,
    exclude_slices=exclude_slices,
    regions=regions,
    density_schemes=density_schemes,
    progress=progress,
  )
  if models is not None:
    return score(interface.versioned(models))
  with predictors.load_models() as demo_models:
    return result_json.marked_as_demo(score(interface.versioned(demo_models)))


def _analyze(
  volume: volume_lib.CTVolume,
  models: interface.VersionedModels,
  *,
  thresholds: results.Thresholds,
  lung_mask: np.ndarray | None,
  exclude_slices: Iterable[int],
  regions: label_regions.LabelMap | None,
  density_schemes: lung_measures.DensitySchemes | None,
  progress: Progress,
) -> results.CaseResult:
  corrected = corrections.checked(volume, lung_mask, exclude_slices)
  options = case_score.Options(
    density_schemes or lung_measures.DensitySchemes(),
    None if regions is None else label_regions.checked(volume, regions),
  )
  try:
    return _analyze_once(volume, models, thresholds, corrected, options, progress)
  except errors.ModelVersionChangedError:
    # Half of a study by one version and half by another is nobody's result.
    return _analyze_once(volume, models, thresholds, corrected, options, progress)


def segment(
  volume: volume_lib.CTVolume,
  models: interface.Models,
  slabs: slabs_lib.Slabs,
  progress: Progress = True,
) -> np.ndarray:
  """uint8 [slice, row, column]: the network's lung masks of every slice, as stored.

  Args:
    volume: the CT.
    models: anything with `segment_lungs(hu)` and `lung_probability(hu)`.
    slabs: what the network sees; where these are averages, masks are interpolated.
    progress: see `progress_bar`.
  """
  mask = np.empty(volume.shape, np.uint8)
  turn = orientation.plane_turn(volume.affine)
  if slabs.is_averaged:
    answers = _slab_answers(volume.hu, turn, models, slabs, progress)
    for index, plane in lung_masks.between_slabs(slabs, answers, volume.hu, turn):
      mask[index] = plane
    return mask
  for part in _parts(slabs, progress, 'lungs'):
    hu = turn.to_usual(volume.hu[part])
    with _numbered(slabs, part):
      answer = models.segment_lungs(hu)
    mask[part] = turn.to_stored(
      answers_lib.checked_lung_mask(answer, hu.shape[1:], slabs.middles(part))
    )
  return mask


def _slab_answers(
  hu: np.ndarray,
  turn: orientation.PlaneTurn,
  models: interface.Models,
  slabs: slabs_lib.Slabs,
  progress: Progress,
) -> Iterator[lung_masks.SlabAnswers]:
  for part in _parts(slabs, progress, 'lungs'):
    averages = turn.to_usual(slabs.average(hu, part))
    with _numbered(slabs, part):
      answer = models.lung_probability(averages)
    probability = answers_lib.checked_lung_probability(answer, slabs.middles(part))
    yield lung_masks.SlabAnswers(averages, probability)


def explain(
  volume: volume_lib.CTVolume,
  box: results.LungBox,
  models: interface.Models,
  averages: slabs_lib.Averages,
  progress: Progress = True,
) -> results.SliceExplanation:
  """The classifier's answer for the lung crop of every average, maps as stored.

  Those without lung are asked too: the paper's score is over all slices.
  """
  turn = orientation.plane_turn(volume.affine)
  crops = volume.hu[:, box.rows, box.columns]
  answers = []
  for part in _parts(averages, progress, 'opacities'):
    crop = turn.to_usual(averages.average(crops, part))
    with _numbered(averages, part):
      answer = models.grad_cam(crop)
    answers.append(answers_lib.checked_explanation(answer, averages.middles(part)))
  probability, *cams = map(np.concatenate, zip(*answers))
  return results.SliceExplanation(probability, *map(turn.to_stored, cams))


def _check(models: object, thresholds: object, progress: object) -> None:
  """Refuses what is of another kind, before anything is asked of it."""
  if models is not None and not all(
    callable(getattr(models, name, None)) for name in ('segment_lungs', 'grad_cam')
  ):
    raise errors.UsageError(
      'models: an object with segment_lungs and grad_cam, or None for the demo models, '
      f'is required, found {type(models).__name__}; covid_tf.load_models(folder) or '
      "covid_tf.connect('host:port') gives one."
    )
  if not isinstance(thresholds, (results.Thresholds, type(None))):
    raise errors.UsageError(
      'thresholds: covid_tf.Thresholds(...) or None is required, found '
      f'{type(thresholds).__name__}.'
    )
  if not (callable(progress) or isinstance(progress, (bool, type(None)))):
    raise errors.UsageError(
      'progress: True, False or a callable that makes a bar is required, found '
      f'{type(progress).__name__}.'
    )


def _analyze_once(
  volume: volume_lib.CTVolume,
  models: interface.VersionedModels,
  stated: results.Thresholds,
  corrected: corrections.Corrections,
  options: case_score.Options,
  progress: Progress,
) -> results.CaseResult:
  with models.study() as pinned:
    thresholds = slabs_lib.as_used(stated, pinned.identities())
    slabs = slabs_lib.of_study(volume, thresholds)
    lungs = _lungs(volume, pinned, slabs, corrected, progress)
    explanation = _smoothed(volume, lungs.box, pinned, slabs, thresholds, progress)
    identities = pinned.identities()
  findings = case_score.Findings(
    lungs,
    slabs.to_slices(explanation.covid_probability),
    localization.localize(
      explanation,
      lungs.box,
      volume.shape,
      thresholds.slice_probability,
      slabs,
      corrected.excluded_slices,
    ),
    thresholds,
    identities,
    volume.warnings
    + slabs_lib.warnings(slabs, stated)
    + lungs.warnings
    + coverage.of_acquisition(volume, identities)
    + coverage.of_lungs(volume, lungs.mask),
    demo_models=any(model.is_demo for model in identities),
    edits=corrected.edits(),
    repeatability=_repeatability(identities),
    options=options,
  )
  return case_score.score(volume, findings)


def _smoothed(
  volume: volume_lib.CTVolume,
  box: results.LungBox,
  models: interface.Models,
  slabs: slabs_lib.Slabs,
  thresholds: results.Thresholds,
  progress: Progress,
) -> results.SliceExplanation:
  """The classifier's answer for every slab, its logit smoothed along the body."""
  smoothing_mm = thresholds.smoothing_mm or 0.0
  averages = slabs_lib.classified(slabs, smoothing_mm)
  answer = explain(volume, box, models, averages, progress)
  probability = slabs_lib.smoothed(
    answer.covid_probability, averages.positions_mm, smoothing_mm
  )
  return results.SliceExplanation(
    slabs_lib.of_slabs(averages, probability),
    slabs_lib.of_slabs(averages, answer.cam_28),
    slabs_lib.of_slabs(averages, answer.cam_14),
  )


def _repeatability(
  identities: tuple[results.ModelIdentity, ...],
) -> lung_measures.Repeatability | None:
  """How far the score moves without a change, where the classifier's card says it."""
  card = identities[-1].card if identities else {}
  try:
    return lung_measures.Repeatability.of_card(card.get('repeatability'))
  except ValueError as error:
    raise errors.ModelError(
      f"the classifier: its card's {error}; export the model again."
    ) from None


def _lungs(
  volume: volume_lib.CTVolume,
  models: interface.Models,
  slabs: slabs_lib.Slabs,
  corrected: corrections.Corrections,
  progress: Progress,
) -> lungs_lib.Lungs:
  """The lungs that were given, else those that the network finds."""
  if corrected.lung_mask is not None:
    lungs = lungs_lib.measured_lungs(corrected.lung_mask, volume.voxel_volume_mm3)
  else:
    lungs = lungs_lib.find_lungs(
      segment(volume, models, slabs, progress),
      volume.voxel_volume_mm3,
      volume.affine,
      volume.hu,
    )
  corrections.require_lung_left(lungs.mask, corrected.excluded_slices)
  return lungs


def _parts(
  averages: slabs_lib.Averages, progress: Progress, name: str
) -> Iterator[slice]:
  with progress_bar(progress, total=averages.count, desc=name, unit='slice') as bar:
    for start in range(0, averages.count, interface.CALL_SLICES):
      part = slice(start, min(start + interface.CALL_SLICES, averages.count))
      yield part
      bar.update(part.stop - part.start)


@contextlib.contextmanager
def _numbered(averages: slabs_lib.Averages, part: slice) -> Iterator[None]:
  """Models number the slices they are given; a user numbers those of the study."""
  try:
    yield
  except errors.ModelError as error:
    if isinstance(error, errors.ModelVersionChangedError) or not (
      part.start or averages.is_averaged
    ):
      raise
    covered = averages.covered(part.start)
    raise type(error)(
      f'{error} (Asked about averages of slices of the study: number 0 in this message '
      f'is the average of slices {covered[0]} to {covered[-1]}.)'
      if averages.is_averaged
      else f'{error} (Asked about slices {part.start} and up of the study: number 0 in '
      f'this message is slice {part.start}.)'
    ) from error
