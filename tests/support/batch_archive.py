"""A small archive that batch tests score, in processes that they may kill.

  python tests/batch_archive.py STUDIES OUTPUT DELAY_S

scores it with two worker processes, as covid-tf batch does.
"""

import contextlib
import dataclasses
import pathlib
import sys
import threading
import time

import fake_models
import odd_series
import synthetic_case

from covid_tf import results
from covid_tf.batch import archive
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import run_configuration
from covid_tf.batch import scoring

_SHAPE = (14, 50, 76)
_SPACING_MM = (20.0, 5.0, 5.0)
UID_ROOT = '1.2.826.0.1.3680043.10.511'


def study_uid(number: int) -> str:
  """Study Instance UID of a study of the archive."""
  return f'{UID_ROOT}.2.{number}'


def write_study(folder: pathlib.Path, number: int) -> pathlib.Path:
  """A made-up patient as a DICOM series; the lesion grows with the number."""
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE)
  lesion = ((-80, 30, -30), (18 + 2 * number, 30, 45))
  volume = synthetic_case.make_volume(affine, _SHAPE, lesions=(lesion,))
  return odd_series.save(
    odd_series.series(
      volume.hu,
      _SPACING_MM,
      origin=affine[:3, 3],
      study_uid=study_uid(number),
      series_uid=f'{UID_ROOT}.3.{number}',
    ),
    folder,
  )


def write_archive(root: pathlib.Path, count: int) -> pathlib.Path:
  """`count` studies, each in a folder of its own below `root`."""
  for number in range(1, count + 1):
    write_study(root / f'case{number:02d}', number)
  return root


@dataclasses.dataclass(frozen=True)
class OpenFakeModels:
  """Opens fake models that take their time, in any process.

  Attributes:
    delay_s: of each study.
  """

  delay_s: float = 0.0

  def __call__(self, server: str):
    del server
    return contextlib.nullcontext(_SlowModels(self.delay_s))


class _SlowModels(fake_models.FakeModels):
  def __init__(self, delay_s: float):
    super().__init__()
    self._delay_s = delay_s

  def grad_cam(self, hu):
    time.sleep(self._delay_s)
    return super().grad_cam(hu)


def make_scorer(output, delay_s: float = 0.0, **cuts) -> scoring.Scorer:
  """A scorer by fake models."""
  return scoring.Scorer(
    str(output),
    OpenFakeModels(delay_s),
    ('',),
    run_configuration.Configuration(
      run_configuration.model_triples(fake_models.IDENTITIES),
      results.Thresholds(**cuts),
    ),
    with_reports=False,
  )


def score_in_process(
  source, output, *, stop=None, redo=False, **cuts
) -> archive_run.Outcome:
  """Scores an archive without any worker process."""
  with archive_run.exclusive(output):
    return archive_run.run(
      archive.find_studies(source),
      make_scorer(output, **cuts),
      lambda function, studies: ((study, function(study)) for study in studies),
      stop or threading.Event(),
      redo=redo,
    )


def main(source: str, output: str, delay_s: str) -> None:
  """Scores an archive with two worker processes."""
  stop = threading.Event()

  def map_studies(function, studies):
    return engines.map_studies(function, studies, processes=2, stop=stop)

  with archive_run.exclusive(output) as folder:
    archive_run.run(
      archive.find_studies(source, index_path=folder / 'index.jsonl'),
      make_scorer(output, float(delay_s)),
      map_studies,
      stop,
    )


if __name__ == '__main__':
  main(*sys.argv[1:])
