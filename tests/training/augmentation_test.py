"""Records, augmentation, stages and losses: round trips, geometry, limits."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_training

from covid_tf import errors
from covid_tf.models import preprocessing
from covid_tf.training import augmentation
from covid_tf.training import pipelines
from covid_tf.training import shards
from covid_tf.training import tasks

_SIZE = 32
_CONSTANTS = preprocessing.Preprocessing((-1350.0, 150.0), _SIZE, 0.5)


@pytest.fixture(name='shard')
def _shard(tmp_path):
  return tiny_training.write_shard(tmp_path / 'a.tfrecord')


def test_a_record_comes_back_as_it_was_written():
  record = tiny_training.record(5, 1)
  parsed = shards.parse_record(shards.serialize_record(record))
  np.testing.assert_array_equal(parsed['hu'], record.hu)
  np.testing.assert_array_equal(parsed['lung_mask'], record.lung_mask)
  assert tuple(parsed['box'].numpy()) == record.box
  assert parsed['patient'].numpy() == b'p1' and int(parsed['label']) == 1


def test_a_shard_that_fails_leaves_nothing_under_its_name(tmp_path):
  def failing():
    yield tiny_training.record(0, 0)
    raise RuntimeError('drawn badly')

  with pytest.raises(RuntimeError):
    shards.write_shard(tmp_path / 'b.tfrecord', failing())
  assert not (tmp_path / 'b.tfrecord').exists()


def test_augmentation_moves_slice_mask_and_box_together():
  hu = np.full((80, 100), -1000, np.int16)
  hu[30:50, 20:45] = 0
  mask = (hu == 0).astype(np.uint8)
  box = tf.constant([30, 20, 50, 45])
  for seed in range(8):
    moved_hu, moved_mask, moved_box = augmentation.augment_slice(
      hu, mask, box, tf.constant([seed, 1]), augmentation.Augmentation(10.0, 0.5, 0.0)
    )
    row0, column0, row1, column1 = moved_box.numpy()
    inside = moved_hu.numpy()[moved_mask.numpy() > 0]
    assert inside.mean() > -100  # The mask still lies on what it marked.
    assert moved_mask.numpy()[row0:row1, column0:column1].mean() > 0.7
    assert abs(int(moved_mask.numpy().sum()) - int(mask.sum())) < 0.1 * mask.sum()


def test_coarsening_blurs_and_keeps_the_mean():
  record = tiny_training.record(2, 1)
  how = augmentation.Augmentation(
    0.0, 0.0, 0.0, coarsening=4.0, coarsening_probability=1.0
  )
  hu, _, _ = augmentation.augment_slice(
    record.hu, record.lung_mask, tf.constant(record.box), tf.constant([3, 2]), how
  )
  steps = np.abs(np.diff(hu.numpy())).mean()
  assert steps < 0.5 * np.abs(np.diff(record.hu.astype(float))).mean()
  assert float(hu.numpy().mean()) == pytest.approx(record.hu.mean(), abs=5)


@pytest.mark.parametrize(('sigma', 'coarsening'), [(0.0, 0.0), (2.0, 0.0), (2.0, 1.0)])
def test_softening_is_what_it_says(sigma, coarsening):
  pixels = tf.constant(40)
  factor = tf.constant(1.0 + 3.0 * coarsening)
  matrix = augmentation._softening_matrix(pixels, factor, tf.constant(sigma)).numpy()
  np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
  spread = matrix[20] @ (np.arange(40) - matrix[20] @ np.arange(40)) ** 2
  if coarsening:
    assert spread > sigma**2 + 1
  else:
    assert spread == pytest.approx(sigma**2, abs=0.05)


def test_density_moves_lung_and_neither_room_air_nor_tissue():
  hu = tf.constant([[-1024.0, -1000, -900, -800, -400, 0, 300]])
  denser = augmentation._change_density(hu, tf.constant(140.0)).numpy()[0]
  thinner = augmentation._change_density(hu, tf.constant(-140.0)).numpy()[0]
  np.testing.assert_allclose(denser, [-1024, -1000, -830, -660, -330, 0, 300])
  np.testing.assert_allclose(thinner, [-1024, -1000, -970, -940, -470, 0, 300])
  everything = tf.range(-1024.0, 400.0)[tf.newaxis]
  for change in (-140.0, 140.0):  # What is denser stays denser.
    assert np.all(np.diff(augmentation._change_density(everything, change)) > 0)


def test_without_augmentation_nothing_changes():
  record = tiny_training.record(3, 1)
  hu, mask, box = augmentation.augment_slice(
    record.hu,
    record.lung_mask,
    tf.constant(record.box),
    tf.constant([1, 2]),
    augmentation.NONE,
  )
  np.testing.assert_array_equal(hu, record.hu)
  np.testing.assert_array_equal(mask, record.lung_mask)
  assert tuple(box.numpy()) == record.box


def test_the_same_seed_gives_the_same_batches(shard):
  how = augmentation.Augmentation(10.0, 0.5, 0.1, 20.0, 20.0)

  def first_batch(seed):
    dataset = pipelines.batches(
      pipelines.shuffled_records([shard], seed, 8).map(pipelines.parsed),
      lambda r, s: pipelines.classifier_example(r, s, how, _CONSTANTS),
      6,
    )
    return next(iter(dataset))

  (one, labels_one), (two, labels_two) = first_batch(4), first_batch(4)
  np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(labels_one, labels_two)
  assert np.abs(first_batch(5)[0] - one).max() > 1


def test_training_crops_are_preprocessed_as_served_ones_are(shard):
  record, seed = next(iter(pipelines.records_in_order([shard])))
  image, _ = pipelines.classifier_example(record, seed, augmentation.NONE, _CONSTANTS)
  crop = record['hu'][8:40, 10:50]
  np.testing.assert_array_equal(
    image, preprocessing.network_input(crop[tf.newaxis], _CONSTANTS)[0]
  )


def test_no_training_crop_leaves_lung_out(shard):
  record, _ = next(iter(pipelines.records_in_order([shard])))
  row0, column0, row1, column1 = (int(side) for side in record['box'])
  thin = np.zeros(record['hu'].shape, np.uint8)
  thin[row1 - 6 : row1, column1 - 2 : column1] = 1  # Along the pleura, in a corner.
  drawn = {'lung_mask': tf.constant(thin), 'lesion_mask': tf.constant(thin)}
  how = augmentation.Augmentation(12.0, 0.5, 0.2)
  for draw in range(30):
    seed = tf.constant([3, draw])
    image, labels = pipelines.located_example(record | drawn, seed, how, _CONSTANTS)
    # A crop is at most 1.4 times as wide and high as the box.
    whole = 12 * _SIZE**2 / (1.4**2 * (row1 - row0) * (column1 - column0))
    assert tf.reduce_sum(labels['lesion']) > 0.7 * whole  # Turning rounds pixels.
    healthy, _ = pipelines.located_example(
      record | drawn | {'lesion_mask': tf.zeros_like(thin), 'label': 0},
      seed,
      how,
      _CONSTANTS,
    )
    np.testing.assert_array_equal(image, healthy)  # The crop gives no hint.


def test_the_learning_rate_falls_as_a_cosine():
  stage = tasks.Stage.parse('64:101:1e-3:1e-4')
  rates = [stage.learning_rate_at(step) for step in (0, 50, 100, 500)]
  np.testing.assert_allclose(rates, [1e-3, 5.5e-4, 1e-4, 1e-4], rtol=1e-3)


@pytest.mark.parametrize(
  'text',
  [
    '',
    '112:10',
    'a:1:1:1',
    '112:10:1e-3:1e-4:9',
    '112:10:1e-4:1e-3',
    '112:0:1e-3:1e-4',
    '112:10:nan:1e-4',
    '112:10:1e-3:-1',
  ],
)
def test_a_malformed_stage_is_wrong_use(text):
  with pytest.raises(errors.UsageError, match='size:steps:rate:final_rate'):
    tasks.Stage.parse(text)


def test_dice_loss_is_zero_for_a_sure_and_right_answer():
  labels = tf.reshape(tf.constant([1.0, 1, 0, 0]), (1, 2, 2, 1))
  right = tasks.dice_and_cross_entropy(labels, 40 * labels - 20)
  wrong = tasks.dice_and_cross_entropy(labels, 20 - 40 * labels)
  assert float(right) < 1e-3 and float(wrong) > 10
  nothing = tf.zeros((1, 2, 2, 1))
  assert np.isfinite(float(tasks.dice_and_cross_entropy(nothing, nothing - 20)))
