"""The threshold of a case: a number, or the operating point that a cohort gave."""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import math
import os
import pathlib

from covid_tf import errors
from covid_tf import results

SCHEMA_VERSION = 1  # Of operating_point.json.


@dataclasses.dataclass(frozen=True)
class CaseThreshold:
  """Where a score says yes.

  Attributes:
    corona_score_cm3: a score above it is a detected case.
    rule: how it was chosen, for people.
    models: name to card digest of the models whose scores it was chosen from;
      empty where nobody said.
  """

  corona_score_cm3: float
  rule: str = ''
  models: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def require_same_models(self, identities: Iterable[results.ModelIdentity]) -> None:
    """Refuses to judge scores of other models: their cm³ are not the same.

    Args:
      identities: the models that score now.

    Raises:
      errors.UsageError: another model of one of these names.
    """
    digests = {model.name: model.card_sha256 for model in identities}
    for name, digest in self.models.items():
      if digests.get(name) != digest:
        raise errors.UsageError(
            f'--case-threshold: it was chosen with the {name} model {digest[:12]}, '
            f'but {digests.get(name, "no model")[:12]} answers; run covid-tf cohort '
            'on scores of the model in use.')


def parse(text: str) -> CaseThreshold:
  """Reads the value of --case-threshold.

  Args:
    text: a number of cm³, or the path of an operating_point.json.

  Raises:
    errors.UsageError: neither.
  """
  try:
    number = float(text)
  except ValueError:
    return read(text)
  return CaseThreshold(_volume(number, '--case-threshold'), 'given as a number')


def read(path: str | os.PathLike) -> CaseThreshold:
  """Reads an operating_point.json of `covid-tf cohort`.

  Raises:
    errors.UsageError: no such file, or not an operating point.
  """
  path = pathlib.Path(path)
  required = (
      'a number of cm³ or an operating_point.json of covid-tf cohort is required')
  try:
    content = json.loads(path.read_text('utf-8'))
  except OSError as error:
    raise errors.UsageError(
        f'--case-threshold {path}: {required}, found no such file '
        f'({error.strerror}).') from error
  except ValueError as error:
    raise errors.UsageError(
        f'--case-threshold {path}: {required}, found no JSON.') from error
  found = content.get('schema_version') if isinstance(content, dict) else None
  if found != SCHEMA_VERSION:
    raise errors.UsageError(
        f'--case-threshold {path}: schema_version {SCHEMA_VERSION} is required, '
        f'found {found}; write it again with covid-tf cohort.')
  return CaseThreshold(
      _volume(content.get('case_corona_score_cm3'), f'--case-threshold {path}'),
      str(content.get('rule', '')), _digests(content.get('models'), path))


def _volume(value, where: str) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
      0 <= value < math.inf):
    raise errors.UsageError(
        f'{where}: a finite number of cm³ not below 0 is required, found {value!r}.')
  return float(value)


def _digests(models, path) -> dict[str, str]:
  if not isinstance(models, dict) or not all(
      isinstance(digest, str) for digest in models.values()):
    raise errors.UsageError(
        f'--case-threshold {path}: models with their card digests are required, '
        f'found {json.dumps(models)[:60]}; write it again with covid-tf cohort.')
  return dict(models)
