import contextlib
import dataclasses
import io
import sys
import tracemalloc

import fake_models
import numpy as np
import pytest
import synthetic_case
import tqdm

from covid_tf import errors
from covid_tf import results
from covid_tf.analysis import localization
from covid_tf.analysis import pipeline
from covid_tf.analysis import slabs as slabs_lib

_SHAPE = (70, 42, 64)  # More than two calls of slices.
_SPACING = (4.0, 6.0, 6.0)


@pytest.fixture(name='volume', scope='module')
def _volume():
  affine = synthetic_case.axial_affine(_SPACING, _SHAPE)
  return synthetic_case.make_volume(
    affine, _SHAPE, warnings=('an oddity',), patient_key='k' * 64
  )


# As the network gives them: what smoothing does is tested by itself.
_UNSMOOTHED = results.Thresholds(smoothing_mm=0)


@pytest.fixture(name='result', scope='module')
def _result(volume):
  return pipeline.analyze(volume, fake_models.FakeModels(), thresholds=_UNSMOOTHED)


def test_the_path_from_volume_to_score(volume, result):
  models = fake_models.FakeModels()
  box = result.lung_box
  explanation = models.grad_cam(
    np.ascontiguousarray(volume.hu[:, box.rows, box.columns])
  )
  np.testing.assert_array_equal(result.slice_probability, explanation.covid_probability)
  positive = np.flatnonzero(explanation.covid_probability > 0.5)
  assert 10 < len(positive) < 60 and result.positive_slices == tuple(positive)
  total = 0
  for index in positive:
    fused = localization.fuse_scales(
      explanation.cam_28[index], explanation.cam_14[index], box.shape
    )
    np.testing.assert_array_equal(
      result.localization.slice_map(index)[box.rows, box.columns], fused
    )
    total += fused[fused > 0.6].astype(float).sum() * np.prod(_SPACING) / 1e3
  assert result.corona_score_cm3 == pytest.approx(total, rel=1e-9)
  assert result.corona_score_cm3 == result.corona_score_by_slice_cm3.sum()


def test_lungs_of_the_case(volume, result):
  mask = (volume.hu > -1000) & (volume.hu < -300)
  np.testing.assert_array_equal(result.lung_mask, mask)
  assert result.lung_volume_cm3 == pytest.approx(mask.sum() * np.prod(_SPACING) / 1e3)
  assert 0 < result.involved_lung_fraction < 1
  assert result.corona_score_by_region_cm3['right'] > (
    result.corona_score_by_region_cm3['left'] > 0
  )


def test_the_volumes_own_facts_are_carried(volume, result):
  for name in (
    'shape',
    'spacing_mm',
    'voxel_volume_mm3',
    'study_uid',
    'series_uid',
    'acquisition_date',
    'patient_key',
    'warnings',
  ):
    assert getattr(result, name) == getattr(volume, name), name
  np.testing.assert_array_equal(result.affine, volume.affine)
  assert result.models == fake_models.IDENTITIES
  assert result.software.startswith('covid-tf ')


def test_every_slice_is_asked_once_in_calls_that_show_progress(volume):
  models = fake_models.FakeModels()
  result = pipeline.analyze(volume, models)
  assert sum(models.lung_calls) == 70 and len(models.lung_calls) > 1
  assert sum(shape[0] for shape in models.crops) == 70
  assert {shape[1:] for shape in models.crops} == {result.lung_box.shape}


@pytest.mark.parametrize(
  'threshold, detected', [(None, None), (1.0, True), (1e4, False)]
)
def test_case_answer_only_with_a_threshold(volume, threshold, detected):
  result = pipeline.analyze(
    volume,
    fake_models.FakeModels(),
    thresholds=results.Thresholds(case_corona_score_cm3=threshold),
  )
  assert result.case_detected is detected
  exactly = results.Thresholds(case_corona_score_cm3=result.corona_score_cm3)
  assert (
    pipeline.analyze(volume, fake_models.FakeModels(), thresholds=exactly).case_detected
    is False
  )


def test_models_need_no_more_than_two_methods(volume, result):
  class Bare:
    segment_lungs = fake_models.FakeModels().segment_lungs

    def grad_cam(self, hu):
      return tuple(
        np.asarray(part, np.float64) for part in fake_models.FakeModels().grad_cam(hu)
      )

  bare = pipeline.analyze(volume, Bare(), thresholds=_UNSMOOTHED)
  assert bare.corona_score_cm3 == result.corona_score_cm3 and bare.models == ()


def test_no_lungs_no_number(volume):
  class Blind(fake_models.FakeModels):
    def segment_lungs(self, hu):
      return np.zeros(hu.shape, np.uint8)

    def grad_cam(self, hu):
      pytest.fail('must not be asked about a study without lungs')

  with pytest.raises(errors.NoLungsError):
    pipeline.analyze(volume, Blind())


def test_a_nan_names_its_slice_in_the_study(volume):
  class Damaged(fake_models.FakeModels):
    def grad_cam(self, hu):
      answer = super().grad_cam(hu)
      if len(self.crops) == 2:
        answer.cam_14[5, 0, 0] = np.nan
      return answer

  with pytest.raises(errors.ModelError, match='cam_14, slice 37.*nan'):
    pipeline.analyze(volume, Damaged())


def test_a_models_own_slice_number_is_set_right(volume):
  class Failing(fake_models.FakeModels):
    def segment_lungs(self, hu):
      if self.lung_calls:
        raise errors.ModelError('localhost:8500: slice 5 failed.')
      return super().segment_lungs(hu)

  with pytest.raises(errors.ModelError, match='slice 5 .*number 0 .* is slice 32'):
    pipeline.analyze(volume, Failing())


class _Versioned(fake_models.FakeModels):
  """Serves studies; the versions go away in the middle of the first `changes`."""

  def __init__(self, changes):
    super().__init__()
    self.changes = changes
    self.studies = 0

  def segment_lungs(self, hu):
    pytest.fail('the study must be asked, not the unpinned models')

  @contextlib.contextmanager
  def study(self):
    self.studies += 1
    yield fake_models.FakeModels()
    if self.studies <= self.changes:
      raise errors.ModelVersionChangedError('version 1 went away.')


def test_a_study_starts_again_once_when_the_version_changes(volume, result):
  models = _Versioned(changes=1)
  again = pipeline.analyze(volume, models, thresholds=_UNSMOOTHED)
  assert again.corona_score_cm3 == result.corona_score_cm3
  assert models.studies == 2
  models = _Versioned(changes=2)
  with pytest.raises(errors.ModelVersionChangedError):
    pipeline.analyze(volume, models)
  assert models.studies == 2


@pytest.mark.parametrize(
  'thresholds', [results.Thresholds(every_slice=True), results.Thresholds()]
)
def test_memory_is_the_mask_and_one_call_of_slices(thresholds):
  shape = (160, 128, 128)
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((1.7, 2.0, 2.0), shape), shape
  )

  class Recorded:
    """Answers that take no memory of their own, every slice positive."""

    def segment_lungs(self, hu):
      return (hu > -1000) & (hu < -300)

    def lung_probability(self, hu):
      grid = hu[:, ::8, ::8]
      return ((grid > -1000) & (grid < -300)).astype(np.float32)

    def grad_cam(self, hu):
      ones = np.ones((len(hu), 28, 28), np.float32)
      return ones[:, 0, 0], ones, ones[:, ::2, ::2]

  tracemalloc.start()
  try:
    result = pipeline.analyze(volume, Recorded(), thresholds=thresholds)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert len(result.positive_slices) == 160
  mask_bytes = volume.hu.size
  # Maps of all slices as float32 would be two masks more, their labels four.
  assert peak < 2.5 * mask_bytes


def test_silence_where_there_is_no_terminal(volume, capfd):
  pipeline.analyze(volume, fake_models.FakeModels())
  assert capfd.readouterr() == ('', '')


def test_a_bar_on_a_terminal(volume, monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  terminal = Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  pipeline.analyze(volume, fake_models.FakeModels())
  assert 'lungs' in terminal.getvalue() and 'opacities' in terminal.getvalue()
  assert '70' in terminal.getvalue()


def test_progress_counts_every_slice_of_both_networks(volume):
  bars = []

  def progress(**options):
    bars.append(tqdm.tqdm(file=io.StringIO(), **options))
    return bars[-1]

  pipeline.analyze(volume, fake_models.FakeModels(), progress=progress)
  assert [(bar.n, bar.total) for bar in bars] == [(70, 70), (70, 70)]


def test_progress_can_be_turned_off(volume, monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setattr(sys, 'stderr', Terminal())
  pipeline.analyze(volume, fake_models.FakeModels(), progress=False)
  assert not sys.stderr.getvalue()
  with pytest.raises(errors.UsageError, match='progress: True, False or .* found str'):
    pipeline.analyze(volume, fake_models.FakeModels(), progress='no')


class _Plain:
  """Models without any of the optional methods."""

  def __init__(self, models):
    self.segment_lungs, self.grad_cam = models.segment_lungs, models.grad_cam


class _Forwarding:
  """A wrapper whose methods no look at its class can find."""

  def __init__(self, models):
    self._models = models

  def __getattr__(self, name):
    return getattr(self._models, name)


def test_models_need_neither_identities_nor_studies(volume, result):
  plain = pipeline.analyze(
    volume, _Plain(fake_models.FakeModels()), thresholds=_UNSMOOTHED
  )
  assert plain.models == ()
  assert plain.corona_score_cm3 == result.corona_score_cm3
  assert result.models == fake_models.IDENTITIES  # FakeModels have no study().


def test_a_wrapper_that_forwards_keeps_versions_and_identities(volume):
  models = _Versioned(changes=1)
  result = pipeline.analyze(volume, _Forwarding(models), thresholds=_UNSMOOTHED)
  assert models.studies == 2
  assert result.models == fake_models.IDENTITIES


def test_a_notebook_gets_a_bar(volume, monkeypatch):
  class OutStream(io.StringIO):
    """As a notebook's: no terminal, of a module of ipykernel."""

  OutStream.__module__ = 'ipykernel.iostream'
  monkeypatch.setattr(sys, 'stderr', OutStream())
  pipeline.analyze(volume, fake_models.FakeModels())
  assert 'lungs' in sys.stderr.getvalue()


def _thin(spacing_mm=1.0, slices=140):
  """The study of the other tests, cut into thin slices of the same height."""
  shape = (slices, *_SHAPE[1:])
  affine = synthetic_case.axial_affine((spacing_mm, *_SPACING[1:]), shape)
  return synthetic_case.make_volume(affine, shape)


def test_thin_slices_are_seen_as_slabs_and_counted_as_slices():
  models = fake_models.FakeModels()
  volume = _thin()
  result = pipeline.analyze(volume, models, thresholds=_UNSMOOTHED)
  assert result.thresholds.thickness_mm == 5 and not result.thresholds.every_slice
  slabs = slabs_lib.divide(140, 1.0, 5.0)
  assert sum(models.lung_calls) == 28 == sum(shape[0] for shape in models.crops)
  assert result.slice_probability.shape == (140,)
  assert result.lung_mask.shape == volume.shape
  box = result.lung_box
  crops = slabs.average(volume.hu[:, box.rows, box.columns], slice(0, 28))
  np.testing.assert_array_equal(
    result.slice_probability,
    slabs.to_slices(models.grad_cam(crops).covid_probability),
  )
  # Voxels of slices are counted: the score is the sum over the study's own grid.
  volume_map = result.localization.to_volume().astype(np.float64)
  voxel_cm3 = np.prod((1.0, *_SPACING[1:])) / 1000
  assert result.corona_score_cm3 == pytest.approx(
    volume_map[volume_map > np.float32(0.6)].sum() * voxel_cm3
  )


def test_lungs_hardly_depend_on_how_the_study_was_divided():
  volumes = [
    pipeline.analyze(
      _thin(spacing_mm, slices), fake_models.FakeModels()
    ).lung_volume_cm3
    for spacing_mm, slices in ((1.0, 280), (2.0, 140), (4.0, 70))
  ]
  assert max(volumes) / min(volumes) < 1.02


def test_every_slice_and_thick_slices_are_the_same_bits(volume, result):
  whole = pipeline.analyze(
    volume, fake_models.FakeModels(), thresholds=results.Thresholds(every_slice=True)
  )
  assert result.thresholds.thickness_mm == 5 and whole.thresholds.thickness_mm is None
  assert whole.corona_score_cm3 == result.corona_score_cm3
  np.testing.assert_array_equal(whole.lung_mask, result.lung_mask)
  np.testing.assert_array_equal(whole.slice_probability, result.slice_probability)
  np.testing.assert_array_equal(
    whole.localization.to_volume(), result.localization.to_volume()
  )


@pytest.mark.parametrize('spacing_mm, slices', [(1.0, 280), (4.0, 70), (8.0, 35)])
def test_logits_are_smoothed_along_the_body_before_anything_is_decided(
  spacing_mm, slices
):
  volume = _thin(spacing_mm, slices)
  raw, smooth = (
    pipeline.analyze(volume, fake_models.FakeModels(), thresholds=thresholds)
    for thresholds in (_UNSMOOTHED, results.Thresholds())
  )
  assert raw.thresholds.smoothing_mm == 0 and smooth.thresholds.smoothing_mm == 6
  slabs = slabs_lib.divide(slices, spacing_mm, 5.0)
  by_slab = raw.slice_probability[slabs.middles(slice(None))]
  positions_mm = slabs.positions_mm
  if slabs.is_averaged:  # Half of each two neighbours answers too.
    models, asked = fake_models.FakeModels(), slabs_lib.HalfSteps(slabs)
    box, positions_mm = raw.lung_box, asked.positions_mm
    crops = asked.average(volume.hu[:, box.rows, box.columns], slice(0, asked.count))
    by_slab = models.grad_cam(np.ascontiguousarray(crops)).covid_probability
  by_step = slabs_lib.smoothed(by_slab, positions_mm, 6.0)
  expected = slabs.to_slices(by_step[::2] if slabs.is_averaged else by_step)
  np.testing.assert_array_equal(smooth.slice_probability, expected)
  assert (smooth.slice_probability != raw.slice_probability).any()
  positive = tuple(np.flatnonzero(expected > np.float32(0.5)).tolist())
  assert smooth.positive_slices == positive != raw.positive_slices
  counted = np.flatnonzero(smooth.corona_score_by_slice_cm3)
  assert counted.size and set(counted) <= set(positive)


def test_every_slice_is_smoothed_where_it_is_asked_for():
  volume = _thin(4.0, 70)
  stated = results.Thresholds(every_slice=True, smoothing_mm=6)
  every, thick = (
    pipeline.analyze(volume, fake_models.FakeModels(), thresholds=thresholds)
    for thresholds in (stated, None)
  )
  np.testing.assert_array_equal(every.slice_probability, thick.slice_probability)


def test_models_with_probabilities_are_asked_for_these():
  class Sure(fake_models.FakeModels):
    def lung_probability(self, hu):
      self.lung_calls.append(len(hu))
      return ((hu > -1000) & (hu < -300)).astype(np.float32)[:, ::2, ::2]

    segment_lungs = None

  sure = Sure()
  sure.segment_lungs = lambda hu: pytest.fail('masks were asked for')
  result = pipeline.analyze(_thin(), sure)
  masks = pipeline.analyze(_thin(), fake_models.FakeModels())
  assert sum(sure.lung_calls) == 28
  assert result.lung_volume_cm3 == pytest.approx(masks.lung_volume_cm3, rel=0.05)


@pytest.mark.parametrize('method', ['lung_probability', 'grad_cam'])
def test_a_failure_on_slabs_names_slices_of_the_study(method):
  models = fake_models.FakeModels()

  def fail(hu):
    raise errors.ModelError('slice 0: out of order.')

  setattr(models, method, fail)
  with pytest.raises(
    errors.ModelError, match='number 0 in this message is the average of slices 0 to 4'
  ):
    pipeline.analyze(_thin(), models)


def test_an_answer_to_slabs_that_is_none_is_refused():
  models = fake_models.FakeModels()
  models.lung_probability = lambda hu: np.full((len(hu), 4, 4), np.nan, np.float32)
  with pytest.raises(errors.ModelError, match='lung_probability, slice 2: .*found nan'):
    pipeline.analyze(_thin(), models)
  models.lung_probability = lambda hu: np.zeros((len(hu) - 1, 4, 4), np.float32)
  with pytest.raises(errors.ModelError, match=r'required floats \[28, rows, columns\]'):
    pipeline.analyze(_thin(), models)


class _SaysRepeatability(fake_models.FakeModels):
  """Fakes whose classifier's card says how repeatable scores are."""

  said: object = {'cm3': 2.0, 'relative': 0.15}

  def identities(self):
    lungs, classifier = super().identities()
    card = {'repeatability': self.said}
    return lungs, dataclasses.replace(classifier, card=card)


def test_a_result_says_how_repeatable_its_score_is(volume, result):
  assert result.repeatability is None
  models = _SaysRepeatability()
  found = pipeline.analyze(volume, models, thresholds=_UNSMOOTHED).repeatability
  assert (found.cm3, found.relative) == (2.0, 0.15)
  assert found.limit_cm3(5, 5) == 2.0 and found.limit_cm3(30, 50) == pytest.approx(6)
  models.said = {'cm3': 'two'}
  with pytest.raises(errors.ModelError, match='repeatability must be .* export'):
    pipeline.analyze(volume, models, thresholds=_UNSMOOTHED)
