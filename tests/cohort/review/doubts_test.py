import dataclasses

import numpy as np
import pytest
import scored_studies
import synthetic_case

from covid_tf import results
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.cohort.review import doubts as doubts_lib
from covid_tf.storage import maps
from covid_tf.storage import result_json


@pytest.fixture(name='stored', scope='module')
def _stored(tmp_path_factory):
  folder = scored_studies.write_study(tmp_path_factory.mktemp('doubts') / 'study')
  return result_json.read_result(folder)


@pytest.fixture(name='mask')
def _mask():
  affine = synthetic_case.axial_affine(scored_studies.SPACING_MM, scored_studies.SHAPE)
  volume = synthetic_case.make_volume(affine, scored_studies.SHAPE)
  return synthetic_case.make_result(volume).lung_mask


def _texts(doubts):
  return [doubt.text for doubt in doubts]


def test_a_usual_result_raises_no_doubt(stored, mask):
  # The map of the made-up patient spills over the chest wall, as maps do.
  assert doubts_lib.of_numbers(stored) == () == doubts_lib.of_mask(mask, stored)


@pytest.mark.parametrize(
  'changes, words',
  [
    (
      {'warnings': ('3.1% of the lung lies outside the lung box, x',)},
      '3.1% of the lung lies outside the lung box, x',
    ),
    ({'lung_volume_cm3': 9500.0}, 'Lung volume of 9500 cm³'),
    ({'corona_score_in_lung_cm3': 1.0}, 'of the score lies outside the lung mask'),
    ({'involved_lung_fraction': 0.9}, '90% of the lungs are involved'),
    ({'demo_models': True}, 'demo models'),
    ({'edits': results.Edits(excluded_slices=(3,))}, 'Edited: 1 slice was excluded'),
  ],
)
def test_numbers_that_are_odd_are_named(stored, changes, words):
  (doubt,) = doubts_lib.of_numbers(dataclasses.replace(stored, **changes))
  assert words in doubt.text and doubt.weight > 0


def test_warnings_of_lungs_weigh_more_and_counts_of_voxels_nothing(stored):
  texts = (
    '1979880 padding voxels were set to -1024 HU',
    'Contrast was given.',
    'Lungs reach the lowest slice (90 cm² there): their lower end was not imaged.',
    result_json.DEMO_WARNING,
  )
  found = doubts_lib.of_numbers(dataclasses.replace(stored, warnings=texts))
  assert _texts(found) == list(texts[:3])
  padding, contrast, lungs = (doubt.weight for doubt in found)
  assert padding == 0 < contrast < lungs
  (box,) = lungs_lib.outside_warnings(0.05)
  (outside,) = doubts_lib.of_numbers(dataclasses.replace(stored, warnings=(box,)))
  assert contrast < outside.weight < lungs
  assert doubts_lib.total(found) == contrast + lungs


def test_a_mask_in_pieces(stored, mask):
  with_pieces = mask.copy()
  with_pieces[2, 2:8, 2:8] = with_pieces[14, 2:8, 2:8] = 1
  (doubt,) = doubts_lib.of_mask(with_pieces, stored)
  assert 'in 4 pieces of 10 cm³ or more' in doubt.text and ' 21, 21 cm³.' in doubt.text
  crumbs = mask.copy()
  crumbs[2, 2, 2] = crumbs[14, 2, 2] = 1
  assert doubts_lib.of_mask(crumbs, stored) == ()


def test_slices_that_lost_lung(stored, mask):
  wrong = mask.copy()
  wrong[8] = 0
  wrong[11, :, : wrong.shape[2] // 2 + 4] = 0
  texts = _texts(doubts_lib.of_mask(wrong, stored))
  assert any(text.endswith('above and below them: 8, 11.') for text in texts)
  # Two thin slices in a row are one stretch.
  thin = dataclasses.replace(stored, spacing_mm=(4.0, 6.0, 6.0))
  wrong = mask.copy()
  wrong[8:10] = 0
  assert any(': 8-9.' in text for text in _texts(doubts_lib.of_mask(wrong, thin)))


def test_positive_slices_without_lung(stored, mask):
  odd = dataclasses.replace(stored, positive_slices=(0, 1, 8, 16))
  mask[[0, 1, 16]] = 0
  (doubt,) = doubts_lib.of_mask(mask, odd)
  assert doubt.text == 'Positive slices without lung: 0-1, 16.'


def test_holes(stored, mask):
  holed = mask.copy()
  for index in range(4, 14):
    rows, columns = np.nonzero(mask[index, :, :30])
    row, column = int(rows.mean()), int(columns.mean())
    holed[index, row - 3 : row + 4, column - 3 : column + 4] = 0
  assert any('has holes' in text for text in _texts(doubts_lib.of_mask(holed, stored)))


def test_the_stored_mask_is_what_is_looked_at(tmp_path):
  folder = scored_studies.write_study(tmp_path / 'study')
  found, _ = maps.read(folder / maps.MASK_NAME)
  stored = result_json.read_result(folder)
  assert doubts_lib.of_mask((found > 0).astype(np.uint8), stored) == ()
