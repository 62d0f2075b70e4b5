"""A folder of studies into a feature store, one after the other, resumable."""

from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib

import tqdm

from covid_tf import errors
from covid_tf import pipeline
from covid_tf import readers
from covid_tf import results
from covid_tf import version
from covid_tf.cohort import feature_store
from covid_tf.cohort import manifestation_slices
from covid_tf.cohort import stored_study
from covid_tf.predictors import base

# As the paper: 701 negative slices of 81 patients.
NEGATIVE_SLICES = 9
_FILE_SUFFIXES = ('.nii', '.nii.gz', '.zip')
_NO_BAR = functools.partial(tqdm.tqdm, disable=True)


@dataclasses.dataclass(frozen=True)
class DescribeOptions:
  """What the described slices depend on, besides the models.

  Attributes:
    negative_slices: slices of a patient without disease, at most.
    covid: study UID to the reference standard; empty: positive slices make a
      patient ill.
    result_paths: study UID to its result.json; studies that are not there are scored.
    thresholds: the cuts of the score.
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

  store: feature_store.FeatureStore
  sources: tuple[str, ...]
  refused: dict[str, str]


def find_studies(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Names the studies of a folder: each folder, NIfTI file or zip in it is one.

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
  inner = {path.name: path for path in sorted(root.iterdir())
           if not path.name.startswith('.') and (
               path.is_dir() or path.name.lower().endswith(_FILE_SUFFIXES))}
  return inner or {root.name: root}


def describe_studies(
    studies: Mapping[str, pathlib.Path], folder: pathlib.Path, models: base.Models,
    options: DescribeOptions = DescribeOptions()) -> Described:
  """Describes the slices of every study that the store does not hold yet.

  Args:
    studies: name to path, as `find_studies` gives them.
    folder: of the store.
    models: anything with segment_lungs, grad_cam and features.
    options: see DescribeOptions.

  Returns:
    The store, and the studies that were refused.

  Raises:
    errors.ModelError: a model failed; what is described so far stays.
    errors.UsageError: a stored result is of other models or damaged.
  """
  identities = models.identities() if hasattr(models, 'identities') else ()
  digests = {model.name: model.card_sha256 for model in identities}
  store = feature_store.FeatureStore(folder, {
      'models': digests, 'negative_slices': options.negative_slices,
      'thresholds': dataclasses.asdict(options.thresholds),
      'software': version.__version__,
      'covid': _digest(options.covid)})
  sources, refused = [], {}
  for name, path in tqdm.tqdm(studies.items(), 'studies', disable=None, leave=False):
    source = _identity(path)
    if not store.holds(source):
      try:
        with _one_version(models, digests) as pinned:
          store.put(source, _describe(name, path, pinned, digests, options))
      except errors.StudyRefusedError as error:
        refused[name] = str(error)
        continue
    sources.append(source)
  return Described(store, tuple(sources), refused)


def _describe(
    name: str, path: pathlib.Path, models: base.Models, digests: Mapping[str, str],
    options: DescribeOptions) -> manifestation_slices.StudySlices:
  volume = readers.read_ct(path)
  uid = volume.study_uid or name
  if uid in options.result_paths:
    study = stored_study.read_study(options.result_paths[uid], volume)
    if digests and study.models != digests:
      raise errors.UsageError(
          f'{options.result_paths[uid]}: a result of the models in use is required, '
          'found one of others; score the study again, or name the models that did.')
  else:
    study = manifestation_slices.from_case(pipeline.analyze(
        volume, models, thresholds=options.thresholds, progress=_NO_BAR))
  study = dataclasses.replace(study, study_uid=uid)
  slices = manifestation_slices.choose_slices(
      study, options.negative_slices, options.covid.get(uid))
  return manifestation_slices.describe(volume, study, slices, models)


@contextlib.contextmanager
def _one_version(models: base.Models, digests: Mapping[str, str]):
  """Yields models that stay what the store says for a whole study."""
  if not hasattr(models, 'study'):
    yield models
    return
  with models.study() as pinned:
    found = {model.name: model.card_sha256 for model in pinned.identities()}
    if found != digests:
      raise errors.ModelError(
          'the models changed while studies were described; run the command again, '
          'all studies are then described by the new ones.')
    yield pinned


def _identity(path: pathlib.Path) -> str:
  """The study's place and its files' sizes and times: a changed one is another."""
  inner = sorted(path.rglob('*')) if path.is_dir() else [path]
  stats = [(str(file.relative_to(path)), file.stat()) for file in inner
           if file.is_file()]
  return json.dumps([str(path.resolve()), [
      (name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]])


def _digest(covid: Mapping[str, bool]) -> str:
  return hashlib.sha256(json.dumps(covid, sort_keys=True).encode()).hexdigest()
