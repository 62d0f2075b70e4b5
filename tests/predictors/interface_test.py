"""Models with and without the optional methods; batches that fit and keep order."""

import contextlib

import fake_models
import numpy as np
import pytest

from covid_tf import errors
from covid_tf.predictors import grpc
from covid_tf.predictors import in_process
from covid_tf.predictors import interface


class _Pinning(fake_models.FakeModels):
  """Gives other models for a study, and says how it ended."""

  def __init__(self):
    super().__init__()
    self.pinned = fake_models.FakeModels()
    self.ended = None

  @contextlib.contextmanager
  def study(self):
    try:
      yield self.pinned
    except errors.ModelError as error:
      self.ended = error
      raise


@pytest.mark.parametrize('kind', [grpc.ServedModels, in_process.LoadedModels])
def test_what_the_package_gives_are_versioned_models(kind):
  assert issubclass(kind, interface.VersionedModels)


def test_models_without_optional_methods_are_unknown_and_stay_the_same():
  plain = fake_models.FakeModels()
  assert not isinstance(plain, interface.VersionedModels)
  models = interface.versioned(plain)
  assert isinstance(models, interface.VersionedModels)
  hu = np.full((2, 8, 8), -800, np.int16)
  with models.study() as study:
    assert study.segment_lungs(hu).all() and study.grad_cam(hu).cam_14.shape[0] == 2
    assert study.identities() == fake_models.IDENTITIES
  assert plain.lung_calls == [2]
  assert interface.versioned(object()).identities() == ()


def test_a_study_of_ones_own_is_asked_and_learns_of_errors():
  models = _Pinning()
  with (
    pytest.raises(errors.ModelError, match='went away'),
    interface.versioned(models).study() as study,
  ):
    study.segment_lungs(np.full((3, 8, 8), -800, np.int16))
    raise errors.ModelVersionChangedError('version 1 went away.')
  assert (models.lung_calls, models.pinned.lung_calls) == ([], [3])
  assert isinstance(models.ended, errors.ModelVersionChangedError)


@pytest.mark.parametrize(
  'shape, batch_bytes, sizes',
  [
    ((5, 10, 10), 1, [1] * 5),
    ((5, 10, 10), 400, [2, 2, 1]),
    ((40, 2, 2), 10**9, [16, 16, 8]),
  ],
)
def test_batches_fit_in_a_request(shape, batch_bytes, sizes):
  pieces = interface.ranges(shape, batch_bytes)
  assert [len(piece) for piece in pieces] == sizes
  assert [index for piece in pieces for index in piece] == list(range(shape[0]))


def test_order_is_kept_with_several_in_flight():
  log = []
  answers = interface.in_order(
    [range(i, i + 1) for i in range(5)],
    3,
    lambda piece: log.append(f'start {piece.start}') or piece.start,
    lambda piece, started: log.append(f'finish {started}') or started,
    None,
  )
  assert [answer for _, answer in answers] == [0, 1, 2, 3, 4]
  assert log[:4] == ['start 0', 'start 1', 'start 2', 'finish 0']
  assert [line for line in log if 'finish' in line] == [f'finish {i}' for i in range(5)]


def test_requests_on_their_way_are_cancelled_when_one_fails():
  cancelled = []

  def fail(piece, started):
    raise errors.ModelError('x')

  with pytest.raises(errors.ModelError):
    list(
      interface.in_order(
        [range(i, i + 1) for i in range(5)],
        3,
        lambda piece: piece.start,
        fail,
        cancelled.append,
      )
    )
  assert cancelled == [1, 2]


def test_what_nobody_waits_for_is_cancelled():
  pieces = [range(2), range(2, 4), range(4, 5), range(5, 6)]
  on_their_way, cancelled = [], []

  def start(piece):
    on_their_way.append(piece)
    assert len(on_their_way) <= 2
    return piece.start

  def finish(piece, started):
    on_their_way.remove(piece)
    return started

  given = interface.in_order(pieces, 2, start, finish, cancelled.append)
  assert next(given) == (pieces[0], 0)
  assert next(given) == (pieces[1], 2)
  given.close()
  assert cancelled == [4]


@pytest.mark.parametrize(
  'hu',
  [
    np.zeros((2, 3, 3), np.float32),
    np.zeros((3, 3), np.int16),
    np.zeros((2, 0, 3), np.int16),
    [[[1]]],
  ],
)
def test_other_than_hounsfield_units_is_refused(hu):
  with pytest.raises(errors.UsageError, match='required int16 Hounsfield units'):
    interface.check_hu(hu)
