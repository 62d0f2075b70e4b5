"""Scores the demo's studies over gRPC, with the code of `covid-tf score`."""

from collections.abc import Iterable
import functools
import json
import time

from covid_tf import errors
from covid_tf import files
from covid_tf import predictors
from covid_tf import results
from covid_tf import study_scoring
from covid_tf.datasets import phantom
from covid_tf.datasets import phantom_dicom
from covid_tf.datasets import phantom_truth
from covid_tf.demo import drawing
from covid_tf.demo import layout
from covid_tf.reports import stored_result

_CALL_S = 600  # A demo has time; a busy laptop may need it.
_PATIENCE_S = 5  # Its own server, once gone, does not come back.


def score_case(folder: layout.DemoFolder, name: str, address: str) -> None:
  """Scores one study as `covid-tf score` does, and notes the time it took.

  Args:
    folder: the demo's.
    name: of the case.
    address: 'HOST:PORT' of a server.

  Raises:
    errors.CovidTFError: see `covid-tf score`.
  """
  begin = time.perf_counter()
  study_scoring.score_study(
      folder.study(name), folder.result(name),
      functools.partial(predictors.connect, address, timeout_s=_CALL_S,
                        patience_s=_PATIENCE_S))
  seconds = time.perf_counter() - begin
  files.write_atomically(
      folder.timing(name), json.dumps({'seconds': seconds}).encode())


def is_scored(
    folder: layout.DemoFolder, case: phantom.PhantomCase,
    models: Iterable[results.ModelIdentity]) -> bool:
  """Whether this very phantom was scored here before, by these models."""
  name = drawing.case_name(case)
  try:
    truth = phantom_truth.read_truth(folder.truth(name))
    result = stored_result.read_result(folder.result(name))
  except errors.UsageError:
    return False
  wanted = phantom_dicom.series_uid(case)
  return (truth.series_uid == result.series_uid == wanted
          and folder.timing(name).is_file()
          and _digests(result.models) == _digests(models))


def _digests(models):
  return [(model.name, model.card_sha256) for model in models]
