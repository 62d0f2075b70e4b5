"""The order of slices, and the look through shards before training."""

import collections

import pytest
import tensorflow as tf
import tiny_training

from covid_tf import errors
from covid_tf.training import pipelines
from covid_tf.training import shards


@pytest.fixture(name='sets')
def _sets(tmp_path):
  """Two sets: 10 slices in two shards, two of them unlabelled, and 7 in one."""
  for number in range(2):
    tiny_training.write_shard(tmp_path / f'a{number}.tfrecord', 4, 10 * number)
  shards.write_shard(
    tmp_path / 'a2.tfrecord', [tiny_training.record(i, -1) for i in (30, 31)]
  )
  tiny_training.write_shard(tmp_path / 'b.tfrecord', 7, 100)
  return [shards.look_through(str(tmp_path / name)) for name in ('a*', 'b*')]


def _taken(dataset, count):
  """(slice index, augmentation seed) of the first slices."""
  return [
    (int(shards.parse_record(example)['slice_index']), tuple(seed.numpy()))
    for example, seed in dataset.take(count)
  ]


def _mixed(sets, first=0, seed=3):
  return pipelines.mixed_records(sets, seed, 6, labelled_only=True, first=first)


@pytest.mark.parametrize('first', [1, 8, 15, 16, 41])
def test_a_run_goes_on_at_any_place_as_if_it_had_never_stopped(sets, first):
  whole = _taken(_mixed(sets), 60)
  assert _taken(_mixed(sets, first), 60 - first) == whole[first:]
  assert len({seed for _, seed in whole}) == 60


def test_sets_take_turns_and_every_epoch_has_every_labelled_slice(sets):
  indices = [index for index, _ in _taken(_mixed(sets), 48)]
  assert all(index < 30 for index in indices[::2])
  assert all(index >= 100 for index in indices[1::2])
  first, second = indices[:16:2], indices[16:32:2]
  assert sorted(first) == sorted(second) == [0, 1, 2, 3, 10, 11, 12, 13]
  assert first != second
  assert collections.Counter(indices[1:42:2]) == dict.fromkeys(range(100, 107), 3)


def test_another_seed_gives_another_order(sets):
  assert _taken(_mixed(sets, seed=4), 20) != _taken(_mixed(sets), 20)


def test_workers_share_every_batch(sets):
  whole = _taken(_mixed(sets), 24)
  parts = [
    _taken(pipelines.for_worker(_mixed(sets), 6, worker, 2), 12) for worker in range(2)
  ]
  for batch in range(4):
    together = parts[0][3 * batch : 3 * batch + 3] + parts[1][3 * batch : 3 * batch + 3]
    assert together == whole[6 * batch : 6 * batch + 6]


def test_shards_are_counted(sets):
  assert (sets[0].count, sets[0].positives, sets[0].negatives) == (10, 4, 4)
  assert len(list(pipelines.in_order(sets[0].paths, True))) == sets[0].labelled == 8


def test_some_slices_are_of_every_kind_and_always_the_same():
  some = [int(i) for i in pipelines.some(tf.data.Dataset.range(400), 400, 100)]
  assert len(some) == 100 and some == sorted(some)
  assert all(sum(i % 4 == kind for i in some) > 10 for kind in range(4))
  again = pipelines.some(tf.data.Dataset.range(400), 400, 100)
  assert [int(i) for i in again] == some
  assert len(list(pipelines.some(tf.data.Dataset.range(4), 4, 9))) == 4


def test_no_shard_and_no_slices_are_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='no file matches'):
    shards.look_through(str(tmp_path / 'none*'))
  shards.write_shard(tmp_path / 'empty.tfrecord', [])
  with pytest.raises(errors.UsageError, match='slices are required, found none'):
    shards.look_through(str(tmp_path / 'empty*'))


@pytest.mark.parametrize('damage', ['flipped', 'cut', 'other'])
def test_a_damaged_shard_is_refused_by_name(tmp_path, damage):
  path = tmp_path / 'a.tfrecord'
  tiny_training.write_shard(path, 3)
  data = bytearray(path.read_bytes())
  if damage == 'flipped':
    data[len(data) // 2] ^= 1
  path.write_bytes({'flipped': data, 'cut': data[:-100], 'other': b'text' * 99}[damage])
  with pytest.raises(errors.UsageError, match=r'a\.tfrecord.*damaged'):
    shards.look_through(str(path))


def test_a_class_without_slices_is_refused(tmp_path):
  shards.write_shard(
    tmp_path / 'a.tfrecord', [tiny_training.record(i, 0) for i in range(3)]
  )
  found = shards.look_through(str(tmp_path / 'a*'))
  with pytest.raises(errors.UsageError, match='found 3 negative and 0 positive'):
    shards.require_both_classes('--shards', [found])
