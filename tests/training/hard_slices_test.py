"""The slices that a classifier gets most wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_training

from covid_tf import errors
from covid_tf.datasets import splits
from covid_tf.datasets.collections import study as study_lib
from covid_tf.training import hard_slices
from covid_tf.training import shards as shards_lib


@pytest.fixture(name='shards')
def _shards(tmp_path):
  """Twelve slices in two files; every other is positive; one is unlabelled."""
  paths = [tmp_path / 'a.tfrecord', tmp_path / 'b.tfrecord']
  shards_lib.write_shard(paths[0], [tiny_training.record(i, i % 2) for i in range(7)])
  shards_lib.write_shard(
    paths[1],
    [
      tiny_training.record(i, i % 2 if i != 9 else study_lib.UNLABELLED)
      for i in range(7, 12)
    ],
  )
  return list(map(str, paths))


def _brightness():
  """A classifier whose logit is the mean of what it is shown."""
  images = keras.Input((None, None, 3))
  mean = keras.layers.GlobalAveragePooling2D()(images)
  return keras.Model(images, keras.ops.mean(mean, axis=-1, keepdims=True))


def test_a_slice_is_hard_by_how_far_its_logit_is_on_the_wrong_side(shards):
  model = _brightness()
  hard = hard_slices.hardness(model, shards)
  labels = hard_slices.labels_of(shards)
  assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, -1, 0, 1]
  assert hard[9] == -np.inf
  # Positive slices are brighter, so the logit's sign distinguishes the two formulas.
  logits = np.where(labels == 1, -hard, hard)
  assert logits[labels == 1].min() > logits[labels == 0].max()


def test_the_hardest_of_each_class_are_taken_in_order():
  hard = np.array([5.0, -1.0, 3.0, 9.0, -2.0, np.inf, 3.0])
  labels = np.array([1, 1, 0, 0, 1, -1, 0])
  assert hard_slices.select(hard, labels, 4).tolist() == [0, 1, 2, 3]
  assert hard_slices.select(hard, labels, 3).tolist() == [0, 2, 3]


def test_too_few_of_a_class_are_refused():
  with pytest.raises(errors.UsageError, match='3 slices labelled 1 .* found 1'):
    hard_slices.select(np.zeros(5), np.array([1, 0, 0, 0, -1]), 6)


def test_slices_are_copied_byte_by_byte_with_lists_that_training_reads(
  shards, tmp_path
):
  places = np.array([1, 6, 8])
  output = tmp_path / 'hard'
  hard_slices.write(shards, places, output, thickness_mm=5.0)
  everything = list(tf.data.TFRecordDataset(shards).as_numpy_iterator())
  path = output / hard_slices.SHARD
  copied = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  assert copied == [everything[place] for place in places]
  assert splits.check([path]) == []
  assert splits.require_one_thickness([path]) == 5.0
  found = shards_lib.look_through(str(output / 'hard' / '*'))
  assert (found.positives, found.negatives) == (1, 2)


def test_a_patient_of_the_hard_slices_may_not_be_held_out(shards, tmp_path):
  hard_slices.write(shards, np.array([1, 6]), tmp_path / 'hard')
  hard_slices.write(shards, np.array([0, 11]), tmp_path / 'held_out')
  with pytest.raises(errors.UsageError, match='no patient in both'):
    splits.require_apart(
      {name: [tmp_path / name / hard_slices.SHARD] for name in ('hard', 'held_out')}
    )


def test_a_folder_in_use_is_refused(shards, tmp_path):
  (tmp_path / 'hard').mkdir()
  (tmp_path / 'hard' / 'mine.txt').write_text('mine')
  with pytest.raises(errors.UsageError, match='new or empty folder'):
    hard_slices.write(shards, np.array([1]), tmp_path / 'hard')
  assert (tmp_path / 'hard' / 'mine.txt').read_text() == 'mine'
