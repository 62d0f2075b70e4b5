"""A folder of studies to stored features, and the ways to weigh them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import hashlib
import json
import pathlib
from typing import Any
import zipfile

import numpy as np

from covid_tf import errors
from covid_tf import readers
from covid_tf import results
from covid_tf import version
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs
from covid_tf.cohort.manifestations import slices as slices_lib
from covid_tf.predictors import interface
from covid_tf.readers import formats
from covid_tf.readers import itk_headers
from covid_tf.storage import files

# Described slices on disk, one file a study: what is there is not asked again.
#
# A cohort's features outgrow memory and a run outlasts a night, so each study is
# written when it is done, and read when its turn comes.

_CONFIGURATION = 'configuration'
_STUDY_UID = 'study_uid'


class FeatureStore:
  """A folder of described studies, all of one configuration.

  Attributes:
    folder: where the files are.
    configuration: what the features depend on (models, thresholds, choice of slices).
  """

  def __init__(self, folder: pathlib.Path, configuration: Mapping):
    """Opens a store; the folder is made with its first study.

    Args:
      folder: where the files are.
      configuration: JSON values; files of another one are not read.
    """
    self.folder = pathlib.Path(folder)
    self.configuration = json.dumps(configuration, sort_keys=True)

  def path(self, source: str) -> pathlib.Path:
    """The file of a study; named by a digest, since folders are named by people."""
    return self.folder / f'{hashlib.sha256(source.encode()).hexdigest()[:24]}.npz'

  def holds(self, source: str) -> bool:
    """Whether the study is there, whole and of this configuration."""
    try:
      with np.load(self.path(source), allow_pickle=False) as stored:
        return str(stored[_CONFIGURATION]) == self.configuration
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
      return False

  def put(self, source: str, study: slices_lib.StudySlices) -> None:
    """Writes a study.

    Args:
      source: what the study is called in this run, unique.
      study: its described slices.

    Raises:
      errors.OutputError: it cannot be written.
    """
    with files.replacing(self.path(source)) as temporary:
      with open(temporary, 'wb') as file:
        arrays: dict[str, Any] = {_CONFIGURATION: np.array(self.configuration)} | {
          field.name: np.asarray(getattr(study, field.name))
          for field in dataclasses.fields(study)
        }
        np.savez(file, **arrays)

  def get(self, source: str) -> slices_lib.StudySlices:
    """Reads a study.

    Raises:
      errors.UsageError: its file is damaged or of another configuration.
    """
    path = self.path(source)
    try:
      with np.load(path, allow_pickle=False) as stored:
        if str(stored[_CONFIGURATION]) != self.configuration:
          raise ValueError('another configuration')
        fields: dict[str, Any] = {
          field.name: (
            str(stored[field.name]) if field.name == _STUDY_UID else stored[field.name]
          )
          for field in dataclasses.fields(slices_lib.StudySlices)
        }
        return slices_lib.StudySlices(**fields)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
      raise errors.UsageError(
        f'{path}: described slices of this run are required, found {error}; remove '
        'the file and run the command again.'
      ) from error

  def studies(self, sources: Iterable[str]) -> Iterator[slices_lib.StudySlices]:
    """Reads the studies one after the other."""
    for source in sources:
      yield self.get(source)


# A folder of studies into a feature store, one after the other, resumable.

# As the paper: 701 negative slices of 81 patients.
NEGATIVE_SLICES = 9


@dataclasses.dataclass(frozen=True)
class DescribeOptions:
  """What the described slices depend on, besides the models.

  Attributes:
    negative_slices: slices of a patient without disease, at most.
    covid: study UID to the reference standard; empty: positive slices make a
      patient positive.
    result_paths: study UID to its result.json; studies that are not there are scored.
    thresholds: of the score.
  """

  negative_slices: int = NEGATIVE_SLICES
  covid: Mapping[str, bool] = dataclasses.field(default_factory=dict)
  result_paths: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  thresholds: results.Thresholds = results.Thresholds()


@dataclasses.dataclass(frozen=True)
class Described:
  """What came of it.

  Attributes:
    store: the described slices.
    sources: names of the studies in it, in order.
    refused: name of each study that cannot be measured to the reason.
  """

  store: FeatureStore
  sources: tuple[str, ...]
  refused: dict[str, str]


def name_studies(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Names the studies of a folder: each folder, file of a volume or zip in it is one.

  Args:
    root: the folder, or one study.

  Returns:
    Name to path, in order of name; a folder of bare slices is itself one study.

  Raises:
    errors.UsageError: nothing is there.
  """
  if not root.exists():
    raise errors.UsageError(f'{root}: a folder of studies is required, found nothing.')
  if root.is_file():
    return {root.name: root}
  paths = [path for path in sorted(root.iterdir()) if not path.name.startswith('.')]
  voxels = itk_headers.voxel_files(paths)
  inner = {
    path.name: path
    for path in paths
    if path.is_dir() or (path not in voxels and _is_study_file(path))
  }
  return inner or {root.name: root}


def _is_study_file(path: pathlib.Path) -> bool:
  return path.name.lower().endswith('.zip') or (
    path.is_file()
    and not formats.is_segmentation(path.name)
    and formats.volume_kind(path) is not None
  )


def describe_studies(
  studies: Mapping[str, pathlib.Path],
  folder: pathlib.Path,
  models: interface.Models,
  options: DescribeOptions = DescribeOptions(),
  *,
  progress: pipeline.Progress = True,
) -> Described:
  """Describes the slices of every study that the store does not hold yet.

  Args:
    studies: name to path, as `name_studies` gives them.
    folder: of the store.
    models: anything with segment_lungs, grad_cam and features.
    options: see DescribeOptions.
    progress: as `pipeline.progress_bar` takes it; counts studies.

  Returns:
    The store, and the studies that were refused.

  Raises:
    errors.ModelError: a model failed; what is described so far stays.
    errors.UsageError: a stored result is of other models, at another thickness or
      smoothing, or damaged.
  """
  models = interface.versioned(models)
  digests = results.card_digests(models.identities())
  thresholds = slabs.as_used(options.thresholds, models.identities())
  store = FeatureStore(
    folder,
    {
      'models': digests,
      'negative_slices': options.negative_slices,
      'thresholds': dataclasses.asdict(thresholds),
      'software': version.__version__,
      'covid': _digest(options.covid),
    },
  )
  sources, refused = [], {}
  with pipeline.progress_bar(
    progress, total=len(studies), desc='studies', unit='study'
  ) as bar:
    for name, path in studies.items():
      source = _identity(path)
      try:
        if not store.holds(source):
          with _one_version(models, digests) as pinned:
            found = _describe(name, path, pinned, digests, options, thresholds)
            store.put(source, found)
        sources.append(source)
      except errors.StudyRefusedError as error:
        refused[name] = str(error)
      bar.update()
  return Described(store, tuple(sources), refused)


def _describe(
  name: str,
  path: pathlib.Path,
  models: interface.Models,
  digests: Mapping[str, str],
  options: DescribeOptions,
  thresholds: results.Thresholds,
) -> slices_lib.StudySlices:
  volume = readers.read_ct(path)
  uid = volume.study_uid or name
  if uid in options.result_paths:
    study = slices_lib.read_study(options.result_paths[uid], volume)
    if digests and study.models != digests:
      raise errors.UsageError(
        f'{options.result_paths[uid]}: a result of the models in use is required, '
        'found one of others; score the study again, or name the models that did.'
      )
    own = slabs.of_study(volume, thresholds)
    if study.slabs != own:
      raise errors.UsageError(
        f'{options.result_paths[uid]}: a result at the thickness in use '
        f'({_thickness(thresholds)}) is required, found one of '
        f'{_thickness(study.thresholds)}; score the study again, or give '
        f'{_flag(study.thresholds)}.'
      )
    _require_smoothing(options.result_paths[uid], study.thresholds, thresholds)
  else:
    study = slices_lib.from_case(
      pipeline.analyze(volume, models, thresholds=thresholds, progress=False)
    )
  study = dataclasses.replace(study, study_uid=uid)
  slices = slices_lib.choose_slices(
    study, options.negative_slices, options.covid.get(uid)
  )
  return slices_lib.describe(volume, study, slices, models)


@contextlib.contextmanager
def _one_version(models: interface.VersionedModels, digests: Mapping[str, str]):
  """Yields models that stay those of the store for a whole study."""
  with models.study() as pinned:
    if results.card_digests(pinned.identities()) != digests:
      raise errors.ModelError(
        'the models changed while studies were described; run the command again, '
        'all studies are then described by the new ones.'
      )
    yield pinned


def _require_smoothing(
  path: pathlib.Path, found: results.Thresholds, used: results.Thresholds
) -> None:
  if found.smoothing_mm != used.smoothing_mm:
    raise errors.UsageError(
      f'{path}: a result with the smoothing in use ({used.smoothing_mm:g} mm along the '
      f'body) is required, found one of {found.smoothing_mm:g} mm; score the study '
      f'again, or give --smoothing-mm {found.smoothing_mm:g}.'
    )


def _thickness(thresholds: results.Thresholds) -> str:
  if thresholds.thickness_mm is None:
    return 'every slice as it is'
  return f'slabs of {thresholds.thickness_mm:g} mm'


def _flag(thresholds: results.Thresholds) -> str:
  if thresholds.thickness_mm is None:
    return '--every-slice'
  return f'--thickness-mm {thresholds.thickness_mm:g}'


def _identity(path: pathlib.Path) -> str:
  """The study's place and its files' sizes and times: a changed one is another."""
  inner = sorted(path.rglob('*')) if path.is_dir() else [path]
  stats = [
    (str(file.relative_to(path)), file.stat()) for file in inner if file.is_file()
  ]
  return json.dumps(
    [
      str(path.resolve()),
      [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
    ]
  )


def _digest(covid: Mapping[str, bool]) -> str:
  return hashlib.sha256(json.dumps(covid, sort_keys=True).encode()).hexdigest()


# Ways to weigh features before they are clustered.
#
# The paper multiplies features and gradients, element by element, and standardizes
# each (section 3.3). Under global average pooling and one dense unit, the gradient of
# the logit is the same vector g for every slice; then feature j becomes g_j f_j, and
# standardizing gives sign(g_j) times what standardizing f_j alone gives. Distances,
# and so clusters, are those of the plain features: the weighting is void. The others
# here are not, and stand beside it.


@dataclasses.dataclass(frozen=True)
class Weighting:
  """One way.

  Attributes:
    name: for flags and tables.
    meaning: one line for people.
    weigh: described slices to float32 [N, 2048].
    per_feature: whether each feature is then scaled to unit deviation; if not, all
      are divided by one number and keep their relation.
  """

  name: str
  meaning: str
  weigh: Callable[[slices_lib.StudySlices], np.ndarray]
  per_feature: bool


def _paper(slices: slices_lib.StudySlices) -> np.ndarray:
  return slices.features * slices.gradients


def _probability(slices: slices_lib.StudySlices) -> np.ndarray:
  p = slices.covid_probability[:, np.newaxis]
  return slices.features * (p * (1 - p) * slices.gradients)


def _profile(slices: slices_lib.StudySlices) -> np.ndarray:
  evidence = _paper(slices)
  length = np.linalg.norm(evidence, axis=1, keepdims=True)
  return evidence / np.where(length > 0, length, 1)  # No evidence: no direction.


def _focus(slices: slices_lib.StudySlices) -> np.ndarray:
  return (slices.features - slices.erased_features) * slices.gradients


WEIGHTINGS = {
  weighting.name: weighting
  for weighting in (
    Weighting(
      'paper',
      'features × gradients of the logit, each standardized (the paper)',
      _paper,
      per_feature=True,
    ),
    Weighting(
      'features',
      'features alone, each standardized: what the former amounts to '
      'when the gradient is the same for all slices',
      lambda slices: slices.features,
      per_feature=True,
    ),
    Weighting(
      'probability',
      'features × gradients of the probability, each standardized: '
      'confident slices shrink by p(1 − p)',
      _probability,
      per_feature=True,
    ),
    Weighting(
      'relevance',
      'features × gradients of the logit, one scale for all: features '
      'count by what they mean for the answer',
      _paper,
      per_feature=False,
    ),
    Weighting(
      'profile',
      'features × gradients of the logit, every slice scaled to length '
      'one, one scale for all: what the evidence consists of, not how much there is',
      _profile,
      per_feature=False,
    ),
    Weighting(
      'focus',
      'features that go when the opacities under the fused map are erased, '
      '× gradients, one scale for all',
      _focus,
      per_feature=False,
    ),
  )
}

DEFAULT = 'profile'  # docs/adr/0063.
