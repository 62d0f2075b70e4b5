"""Evaluation: figures known by hand, cases of each kind, and what is written."""

import json

import browser
import numpy as np
import odd_series
import pytest

from covid_tf import contract
from covid_tf import errors
from covid_tf import volume as volume_lib
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.datasets.collections import study as study_lib
from covid_tf.training import importing
from covid_tf.training import shards as shards_lib
from covid_tf.training.evaluation import evaluating
from covid_tf.training.evaluation import metrics
from covid_tf.training.evaluation import report


def _block(shape, *bounds):
  mask = np.zeros(shape, np.uint8)
  mask[tuple(slice(*pair) for pair in bounds)] = 1
  return mask


def test_overlap_of_shifted_blocks_is_known():
  truth = _block((6, 20, 20), (1, 5), (4, 14), (4, 14))
  found = _block((6, 20, 20), (1, 5), (4, 14), (6, 16))
  agreement = metrics.compare_masks(found, truth, (8.0, 2.0, 3.0))
  assert agreement.dice == pytest.approx(0.8)
  assert agreement.iou == pytest.approx(8 / 12)
  assert agreement.hausdorff95_mm == pytest.approx(6.0)  # Two columns of 3 mm.
  assert agreement.in_3d


def test_distance_counts_slices_in_millimetres_only_where_they_are_a_stack():
  truth = _block((6, 20, 20), (1, 3), (4, 14), (4, 14))
  found = _block((6, 20, 20), (1, 5), (4, 14), (4, 14))
  assert metrics.compare_masks(found, truth, (8.0, 2.0, 2.0)).hausdorff95_mm == 16.0
  flat = metrics.compare_masks(found, truth, (0.0, 2.0, 2.0))
  assert flat.hausdorff95_mm == 0.0 and not flat.in_3d
  assert metrics.compare_masks(found, truth, (8.0, 0.0, 0.0)).hausdorff95_mm is None


def test_masks_without_lung_have_no_figure():
  empty, full = np.zeros((2, 4, 4), np.uint8), np.ones((2, 4, 4), np.uint8)
  assert metrics.compare_masks(empty, empty, (1.0, 1.0, 1.0)).dice is None
  missed = metrics.compare_masks(empty, full, (1.0, 1.0, 1.0))
  assert missed.dice == 0.0 and missed.hausdorff95_mm is None


def test_slice_figures_of_a_small_set_are_those_counted_by_hand():
  labels = [0, 0, 0, 1, 1, 1]
  probability = [0.1, 0.2, 0.7, 0.4, 0.8, 0.9]
  found = metrics.discriminate(labels, probability, list('aabbcc'))
  assert found.auc == pytest.approx(8 / 9)
  at_half, youden = found.points
  assert (at_half.sensitivity.count, at_half.specificity.count) == (2, 2)
  assert at_half.ppv.value == pytest.approx(2 / 3)
  assert youden.threshold == pytest.approx(0.3)
  assert youden.sensitivity.value == 1.0
  low, high = found.auc_ci95_delong
  assert low < 8 / 9 <= high
  assert found.brier == pytest.approx(np.mean([0.01, 0.04, 0.49, 0.36, 0.04, 0.01]))
  assert sum(b.count for b in found.calibration) == 6


def test_intervals_over_patients_are_wider_where_slices_are_alike():
  random = np.random.default_rng(0)
  patients = np.repeat(np.arange(20), 30)
  level = np.repeat(random.normal(size=20), 30)
  labels = patients % 2
  probability = 1 / (1 + np.exp(-(labels - 0.5 + level)))
  found = metrics.discriminate(labels, probability, patients.astype(str))
  wide, narrow = (
    high - low for low, high in (found.auc_ci95_patients, found.auc_ci95_bootstrap)
  )
  assert wide > 2 * narrow


def test_one_class_alone_has_sensitivity_and_no_area():
  found = metrics.discriminate([1, 1], [0.9, 0.2], None)
  assert found.auc is None and len(found.points) == 1
  assert found.points[0].sensitivity.value == 0.5
  assert found.points[0].specificity.value is None


def test_a_patient_needs_more_than_one_stray_slice():
  names, labels, scores = metrics.patient_scores(
    [0, 0, 0, -1, -1, 1, -1],
    [0.9, 0.0, 0.0, 0.6, 0.6, 0.9, 0.9],
    ['a', 'a', 'a', 'b', 'b', 'c', 'd'],
    [-1, -1, -1, 1, 1, -1, -1],
  )
  assert names == ['a', 'b', 'c']  # Nobody knows about d.
  assert labels.tolist() == [0, 1, 1]
  np.testing.assert_allclose(scores, [0.3, 0.6, 0.9])


def _lungs(hu):
  return ((hu > -950) & (hu < -700)).astype(np.uint8)


def _classifier(hu):
  return np.clip((hu.max(axis=(1, 2)) + 1000) / 1000, 0, 1).astype(np.float32)


def _records(patient, positive, **fields):
  for index in range(4):
    hu = np.full((20, 24), -1000, np.int16)
    hu[4:16, 4:20] = -850
    if positive and index:
      hu[8:10, 8:12] = -300
    mask = np.zeros((20, 24), np.uint8)
    mask[4:16, 4:20] = 1
    yield shards_lib.SliceRecord(
      hu,
      mask,
      None,
      (4, 4, 16, 20),
      int(positive and index > 0),
      2.0,
      patient,
      f's-{patient}',
      index,
      'test',
      **fields,
    )


@pytest.fixture(name='shards')
def _shards(tmp_path):
  paths = []
  for number in range(6):
    path = tmp_path / f'{number}.tfrecord'
    shards_lib.write_shard(
      path,
      _records(
        f'p{number}',
        number % 2,
        lung_mask_kind='pseudo',
        slice_mm=8.0,
        case_label=number % 2,
      ),
    )
    paths.append(str(path))
  return paths


def test_shards_are_evaluated_case_by_case(shards):
  found = evaluating.evaluate(evaluating.from_shards(shards), _lungs, _classifier)
  assert [case.series for case in found.lungs] == [f's-p{i}' for i in range(6)]
  assert found.lungs[0].agreement.dice == 1.0
  assert found.lungs[1].agreement.dice < 1.0
  assert found.by_slice.auc == 1.0 and found.by_slice.n_positive == 9
  assert found.by_patient.n_positive == 3 and found.by_patient.auc == 1.0
  assert found.by_patient.auc_ci95_newcombe[0] < 0.8  # Six patients prove little.
  assert any('pseudo-labels' in note for note in found.notes)


def test_both_files_say_the_same_and_quote_the_paper(shards, tmp_path):
  found = evaluating.evaluate(evaluating.from_shards(shards), _lungs, _classifier)
  report.write(found, {'Classifier': 'a <b>'}, tmp_path / 'out')
  stored = json.loads((tmp_path / 'out' / report.JSON_NAME).read_text())
  page = (tmp_path / 'out' / report.PAGE_NAME).read_text()
  assert stored['slices']['auc'] == 1.0 and len(stored['slice_probability']) == 24
  assert stored['paper']['slices']['auc'] == 0.994
  assert '0.994' in page and 'a &lt;b&gt;' in page and page.count('<svg') == 5
  assert '<b>' not in page.split('<main>')[1].split('svg')[0]


def test_slices_without_a_box_take_the_lung_network_or_a_pseudo_mask():
  case, *_ = _records('p', True)
  hu = np.full((100, 100), 40, np.int16)
  hu[:8] = hu[-8:] = hu[:, :8] = hu[:, -8:] = -1000
  hu[30:70, 30:70] = -850
  single = evaluating.Case(
    'x', 'p', hu[np.newaxis], np.array([1]), -1, None, 'none', None, (0.0, 2.0, 2.0)
  )
  assert case.label == 0
  by_network = evaluating.evaluate([single], _lungs, _classifier)
  assert by_network.slices[0].crop == 'lung network' and not by_network.lungs
  assert by_network.slices[0].probability == pytest.approx(0.15)  # The crop is lung.
  by_mask = evaluating.evaluate([single], None, _classifier)
  assert by_mask.slices[0].crop == 'pseudo lung mask'
  nothing = np.zeros((1, 100, 100), np.int16)
  empty = evaluating.Case(
    'y', 'p', nothing, np.array([1]), -1, None, 'none', None, (0.0, 2.0, 2.0)
  )
  both = evaluating.evaluate([single, empty], _lungs, _classifier)
  assert [series for series, _ in both.left_out] == ['y']
  with pytest.raises(errors.UsageError, match='found none'):
    evaluating.evaluate([empty], _lungs, _classifier)


def test_a_network_that_is_not_there_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='found no such file'):
    evaluating.load_network(contract.CLASSIFIER_MODEL, tmp_path / 'none.weights.h5')


def test_thin_slices_are_classified_as_slabs(tmp_path):
  shard = str(tmp_path / 'thin.tfrecord')
  shards_lib.write_shard(shard, _records('p1', 1, slice_mm=2.5))
  cases = list(evaluating.from_shards([shard]))
  seen = []

  def classifier(hu):
    seen.append(hu)
    return _classifier(hu)

  found = evaluating.evaluate(cases, None, classifier, thickness_mm=5.0)
  pairs = cases[0].hu[:, 4:16, 4:20].reshape(2, 2, 12, 16)
  np.testing.assert_array_equal(seen[0], np.rint(pairs.mean(axis=1)))
  assert [one.probability for one in found.slices] == np.repeat(
    _classifier(seen[0]), 2
  ).tolist()
  evaluating.evaluate(cases, None, classifier)
  assert len(seen[1]) == 4
  found = evaluating.evaluate(
    cases, None, classifier, thickness_mm=5.0, smoothing_mm=6.0
  )
  # The slab between the two answers too.
  between = np.rint(cases[0].hu[1:3, 4:16, 4:20].mean(axis=0))
  np.testing.assert_array_equal(seen[2], [seen[0][0], between, seen[0][1]])
  positions_mm = np.array([2.5, 5.0, 7.5])
  smooth = slabs_lib.smoothed(_classifier(seen[2]), positions_mm, 6.0)[::2]
  assert [one.probability for one in found.slices] == np.repeat(smooth, 2).tolist()


def test_slices_that_are_no_neighbours_are_not_averaged(tmp_path):
  shard = str(tmp_path / 'chosen.tfrecord')
  records = list(_records('p1', 1, slice_mm=2.5))
  shards_lib.write_shard(shard, [records[0], *records[2:]])
  seen = []

  def classifier(hu):
    seen.append(hu)
    return _classifier(hu)

  cases = evaluating.from_shards([shard])
  found = evaluating.evaluate(
    cases, None, classifier, thickness_mm=5.0, smoothing_mm=6.0
  )
  assert len(seen[0]) == 3
  assert [one.probability for one in found.slices] == _classifier(seen[0]).tolist()


def test_figures_are_divided_by_what_the_cases_state(tmp_path):
  paths = []
  for number in range(6):
    scan = {'manufacturer': 'SIEMENS', 'kernel': 'B40f', 'nominal_thickness_mm': 8.0}
    if number > 3:
      scan = {'manufacturer': 'GE <b>', 'kernel': 'LUNG', 'nominal_thickness_mm': 1.25}
    path = tmp_path / f'{number}.tfrecord'
    shards_lib.write_shard(
      path, _records(f'p{number}', number % 2, **(scan if number else {}))
    )
    paths.append(str(path))
  found = evaluating.evaluate(evaluating.from_shards(paths), _lungs, _classifier)
  by_name = {(each.factor, each.name): each for each in found.strata}
  assert {name for factor, name in by_name if factor == 'kernel'} == {
    'B40f',
    'LUNG',
    'not stated',
  }
  siemens = by_name['scanner', 'SIEMENS']
  assert (siemens.series, siemens.n_positive, siemens.n_negative) == (3, 6, 6)
  assert siemens.auc == 1.0 and siemens.sensitivity == siemens.specificity == 1.0
  assert by_name['slice thickness', 'below 1.5 mm'].series == 2
  without = by_name['kernel', 'not stated']
  assert (without.n_positive, without.auc, without.sensitivity) == (0, None, None)
  assert without.dice == 1.0 > siemens.dice
  report.write(found, {'Classifier': 'x'}, tmp_path / 'out')
  stored = json.loads((tmp_path / 'out' / report.JSON_NAME).read_text())
  assert len(stored['acquisition']) == len(found.strata) == 9
  page = (tmp_path / 'out' / report.PAGE_NAME).read_text()
  assert 'By scanner, kernel and thickness' in page and 'GE &lt;B&gt;' in page


def test_cases_that_state_nothing_are_not_divided(shards):
  found = evaluating.evaluate(evaluating.from_shards(shards), _lungs, _classifier)
  assert found.strata == ()


def test_single_slices_say_how_they_were_acquired(tmp_path):
  (ds, *_) = odd_series.series()
  ds.Manufacturer = 'SIEMENS'
  odd_series.save_one(ds, tmp_path / 'a.dcm')
  np.save(tmp_path / 'b.npy', odd_series.chest_hu()[0])
  table = tmp_path / 'slices.csv'
  table.write_text('file,label\na.dcm,1\nb.npy,0\n')
  first, second = evaluating.from_single_slices(str(table))
  assert (first.acquisition.manufacturer, first.acquisition.kernel) == (
    'SIEMENS',
    'B40f',
  )
  assert second.acquisition is None


def test_an_import_keeps_how_a_series_was_acquired():
  volume = volume_lib.CTVolume(
    np.full((4, 24, 24), -850, np.int16),
    np.diag((-1.0, -1.0, 1.0, 1.0))[[2, 1, 0, 3]].T,
    acquisition=volume_lib.Acquisition(
      manufacturer='GE', kernel='LUNG', slice_thickness_mm=1.25
    ),
  )
  study = study_lib.prepared(
    study_lib.of_volume(
      volume, np.zeros(4, np.int8), np.ones((4, 24, 24), np.uint8), None, 'drawn'
    ),
    12,
    'x',
  )
  entry = study_lib.StudyEntry('test', 'p', 's', 'normal', lambda: study)
  (record, *_) = importing.slice_records(entry, study)
  assert (record.manufacturer, record.kernel) == ('GE', 'LUNG')
  assert record.nominal_thickness_mm == 1.25


def test_the_page_can_be_read_by_everybody(shards, tmp_path):
  found = evaluating.evaluate(evaluating.from_shards(shards), _lungs, _classifier)
  report.write(found, {'Classifier': 'a <b>'}, tmp_path / 'out')
  with browser.chromium(webgl=False) as chromium:
    browser.check_page(chromium, tmp_path / 'out' / report.PAGE_NAME)
