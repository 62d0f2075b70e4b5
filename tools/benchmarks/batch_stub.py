"""An archive of phantoms and models that only take their time, for batch.py."""

import contextlib
import dataclasses
import functools
import pathlib
import threading
import time

import numpy as np

from covid_tf import contract
from covid_tf import results
from covid_tf.batch import archive
from covid_tf.batch import archive_run
from covid_tf.batch import engines
from covid_tf.batch import run_configuration
from covid_tf.batch import scoring
from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written

_IDENTITIES = (
  results.ModelIdentity(contract.LUNGS_MODEL, 1, '0' * 64),
  results.ModelIdentity(contract.CLASSIFIER_MODEL, 1, '1' * 64),
)
PHANTOM_NAME = 'phantom.npz'
_SEED = phantom.TRAINING_SEED_LIMIT + 5


def write_archive(
  root: pathlib.Path, count: int, spacing_mm: float, matrix: int
) -> pathlib.Path:
  """One phantom as `count` DICOM studies, equal but for their UIDs.

  Args:
    root: gets the folders, and the lungs for the stub.
    count: of studies.
    spacing_mm: between slices: 10 mm make about 30 of them.
    matrix: rows and columns of a slice.

  Returns:
    The root.
  """
  case = phantom.draw_case(
    _SEED,
    'diffuse',
    slice_spacing_mm=spacing_mm,
    slice_thickness_mm=spacing_mm,
    matrix=matrix,
  )
  drawn = phantom.generate(case)
  root.mkdir(parents=True)
  np.savez(root / PHANTOM_NAME, hu=drawn.volume.hu, lung_mask=drawn.lung_mask)
  for number in range(count):
    study = dataclasses.replace(
      drawn, case=dataclasses.replace(case, seed=case.seed + number)
    )
    written.write_study(study, root / f'study{number:03d}')
  return root


@dataclasses.dataclass(frozen=True)
class OpenStub:
  """Opens models that sleep as long as a server would take.

  Attributes:
    phantom_path: the archive's phantom and its lungs.
    lungs_ms, grad_cam_ms: of one slice.
  """

  phantom_path: str
  lungs_ms: float
  grad_cam_ms: float

  def __call__(self, server: str):
    del server
    return contextlib.nullcontext(StubModels(self))


class StubModels:
  """Knows the lungs; sees one lesion in the middle of every second slice."""

  def __init__(self, settings: OpenStub):
    self._settings = settings
    with np.load(settings.phantom_path) as phantom_file:
      self._lungs = {
        hu.tobytes(): mask
        for hu, mask in zip(phantom_file['hu'], phantom_file['lung_mask'], strict=True)
      }

  def identities(self) -> tuple[results.ModelIdentity, ...]:
    return _IDENTITIES

  def segment_lungs(self, hu: np.ndarray) -> np.ndarray:
    time.sleep(len(hu) * self._settings.lungs_ms / 1000)
    return np.stack([self._lungs[plane.tobytes()] for plane in hu])

  def grad_cam(self, hu: np.ndarray) -> results.SliceExplanation:
    time.sleep(len(hu) * self._settings.grad_cam_ms / 1000)
    probability = np.where(np.arange(len(hu)) % 2, 0.9, 0.1).astype(np.float32)
    return results.SliceExplanation(
      probability,
      _spot(len(hu), contract.FINE_CAM_SIZE),
      _spot(len(hu), contract.COARSE_CAM_SIZE),
    )


def _spot(count: int, size: int) -> np.ndarray:
  axis = np.linspace(-1, 1, size)
  spot = np.exp(-6 * (axis[:, np.newaxis] ** 2 + axis**2)).astype(np.float32)
  return np.broadcast_to(spot / spot.max(), (count, size, size)).copy()


def make_scorer(source, output, lungs_ms, grad_cam_ms) -> scoring.Scorer:
  """A scorer by the stub, without reports, which are no part of the engine."""
  return scoring.Scorer(
    str(output),
    OpenStub(str(pathlib.Path(source) / PHANTOM_NAME), lungs_ms, grad_cam_ms),
    ('',),
    run_configuration.Configuration(
      run_configuration.model_triples(_IDENTITIES), results.Thresholds()
    ),
    with_reports=False,
  )


def score(source, output, processes: int, lungs_ms: float, grad_cam_ms: float):
  """Scores the archive as covid-tf batch does; returns the run's outcome."""
  stop = threading.Event()
  with archive_run.exclusive(output) as folder:
    return archive_run.run(
      archive.find_studies(source, index_path=folder / 'index.jsonl'),
      make_scorer(source, output, lungs_ms, grad_cam_ms),
      functools.partial(engines.map_studies, processes=processes, stop=stop),
      stop,
    )
