"""From a collection to shards, and what a training checks of them.

The collection is a small fake of our own layout (tests/fake_collections.py).
"""

import csv
import json

import fake_collections as fakes
import numpy as np
import pytest
import tensorflow as tf

from covid_tf import errors
from covid_tf.datasets import splits
from covid_tf.datasets.collections import own_layout
from covid_tf.datasets.collections import study as study_lib
from covid_tf.training import importing
from covid_tf.training import pipelines
from covid_tf.training import shards as shards_lib
from covid_tf.training.evaluation import evaluating

_SHARES = {'train': 0.5, 'test': 0.5}


def _import(folder, output, patients=8, **options):
  entries = own_layout.list_studies(fakes.own(folder, patients))
  stratum_of = splits.strata((entry.patient, entry.stratum) for entry in entries)
  split = splits.by_fractions(stratum_of, _SHARES, 1)
  return importing.write_shards(entries, split, output, 24, **options)


@pytest.fixture(name='shards')
def _shards(tmp_path):
  _import(tmp_path / 'own', tmp_path / 'data')
  return tmp_path / 'data'


def _paths(folder, name='*'):
  return sorted(map(str, folder.glob(f'{name}/*.tfrecord')))


def test_shards_hold_what_the_manifest_says(shards):
  rows = list(csv.DictReader((shards / splits.MANIFEST_NAME).open()))
  assert len(rows) == 8 * 8
  found = {}
  for path in _paths(shards):
    for record, _ in pipelines.records_in_order([path]).as_numpy_iterator():
      key = record['series'].decode(), int(record['slice_index'])
      found[key] = record
      assert record['hu'].shape == (24, 20) and record['pixel_mm'] == 12.0
      assert record['slice_mm'] == 8.0 and tuple(record['box']) == (6, 4, 17, 16)
      assert record['lung_mask_kind'] == b'drawn'
  assert len(found) == len(rows)
  for row in rows:
    record = found[row['series'], int(row['slice_index'])]
    assert int(row['label']) == record['label']
    assert row['patient'].encode() == record['patient']
    assert row['shard'].startswith(row['set'] + '/')


def test_a_patient_lies_in_one_set_with_all_studies(shards):
  sets = {}
  for row in csv.DictReader((shards / splits.MANIFEST_NAME).open()):
    sets.setdefault(row['patient'], set()).add(row['set'])
  assert all(len(names) == 1 for names in sets.values())
  assert splits.require_apart(
    {'a': _paths(shards, 'train'), 'b': _paths(shards, 'test')}
  ) == {'a': 4, 'b': 3}
  stored = json.loads((shards / splits.JSON_NAME).read_text())
  assert stored['slices']['train']['positive'] > 0


def test_sets_that_share_a_patient_are_refused_without_naming_him(shards):
  train = _paths(shards, 'train')
  with pytest.raises(errors.UsageError, match='found 1; split by patient') as refused:
    splits.require_apart({'--shards': train, '--validation': train[:1]})
  assert 'own/' not in str(refused.value)


def test_untouched_shards_pass_and_damaged_ones_do_not(shards):
  paths = _paths(shards)
  assert evaluating.check_shards(paths) == 0
  with open(paths[0], 'r+b') as file:
    file.seek(2000)
    file.write(b'\xff\x00\xff')
  with pytest.raises(errors.UsageError, match='the shard is damaged'):
    evaluating.check_shards(paths)
  with open(paths[0], 'r+b') as file:
    file.truncate(3000)
  with pytest.raises(errors.UsageError, match='found 3000; copy or import'):
    evaluating.check_shards(paths)
  with pytest.raises(errors.UsageError, match='found no such file'):
    evaluating.check_shards([paths[0] + 'x'])


def test_shards_without_a_list_are_read_through(shards):
  paths = _paths(shards)[:2]
  (shards / splits.SHARDS_NAME).unlink()
  assert evaluating.check_shards(paths) == 2
  with open(paths[1], 'r+b') as file:
    file.seek(2000)
    file.write(b'\xff\x00\xff')
  with pytest.raises(errors.UsageError, match='a shard of CT slices is required'):
    evaluating.check_shards(paths)
  with open(paths[1], 'wb'):
    pass
  with pytest.raises(errors.UsageError, match='slices are required, found none'):
    evaluating.check_shards(paths)


def test_shards_of_one_thickness_are_required(shards, tmp_path):
  _import(tmp_path / 'again', tmp_path / 'slabs', thickness_mm=7.5)
  slabs = _paths(tmp_path / 'slabs')
  assert splits.require_one_thickness(slabs) == 7.5
  splits.check(slabs)
  whole = _paths(shards)
  assert splits.require_one_thickness(whole) is None
  with pytest.raises(errors.UsageError, match=r'they are \(.* 7.5 mm \(.*--thickness'):
    splits.require_one_thickness([*whole, *slabs])
  listed = tmp_path / 'slabs' / splits.SHARDS_NAME
  text = listed.read_text()
  listed.write_text(text.replace(',7.5\n', ',nan\n'))
  with pytest.raises(errors.UsageError, match="above 0 and .* found 'nan'"):
    splits.require_one_thickness(slabs)
  # A list of before slices could be averaged, and no list at all.
  older = text.replace(',thickness_mm\n', '\n').replace(',7.5\n', '\n')
  listed.write_text(older)
  assert splits.require_one_thickness(slabs) is None
  listed.unlink()
  assert splits.require_one_thickness(slabs) is None


def test_a_folder_in_use_is_refused(shards, tmp_path):
  with pytest.raises(errors.UsageError, match='a new or empty folder'):
    _import(tmp_path / 'again', shards)


def test_a_file_at_the_output_is_told_and_kept(tmp_path):
  (tmp_path / 'data').write_text('mine')
  with pytest.raises(errors.OutputError, match='a file stands where a folder'):
    _import(tmp_path / 'own', tmp_path / 'data')
  assert (tmp_path / 'data').read_text() == 'mine'


def test_a_contradiction_leaves_nothing_behind(tmp_path):
  fakes.own(tmp_path / 'own', 8)
  fakes.save(tmp_path / 'own' / 'lesion_masks' / 's7.nii.gz', fakes.lesion()[:, :-1])
  entries = own_layout.list_studies(tmp_path / 'own')
  split = splits.by_fractions(
    splits.strata((e.patient, e.stratum) for e in entries), _SHARES, 1
  )
  with pytest.raises(errors.UsageError, match='shape of its CT'):
    importing.write_shards(entries, split, tmp_path / 'data', 24)
  assert [path.name for path in tmp_path.iterdir()] == ['own']


def test_a_study_that_cannot_be_read_is_listed_and_left_out(tmp_path):
  fakes.own(tmp_path / 'own', 8)
  path = tmp_path / 'own' / 'studies' / 's2.nii.gz'
  fakes.save(path, fakes.chest() + 2000)  # No air: no HU of a chest.
  entries = own_layout.list_studies(tmp_path / 'own')
  split = splits.by_fractions(
    splits.strata((e.patient, e.stratum) for e in entries), _SHARES, 1
  )
  imported = importing.write_shards(entries, split, tmp_path / 'data', 24)
  assert [series for series, _ in imported.left_out] == ['s2']
  (row,) = csv.DictReader((tmp_path / 'data' / importing.LEFT_OUT_NAME).open())
  assert 'no Hounsfield units of a chest' in row['reason']


def test_a_set_without_positives_is_refused_unless_accepted(tmp_path):
  entries = own_layout.list_studies(fakes.own(tmp_path / 'own', 5))
  # Study s1 and s3 are positive: patients p1 and p3.
  names = {
    entry.patient: 'train' if entry.patient in ('own/p1', 'own/p3') else 'test'
    for entry in entries
  }
  split = splits.given((e.patient, e.stratum, names[e.patient]) for e in entries)
  with pytest.raises(errors.UsageError, match='positive slices .* none in test'):
    importing.write_shards(entries, split, tmp_path / 'data', 24)
  imported = importing.write_shards(
    entries, split, tmp_path / 'data', 24, allow_empty_class=True
  )
  assert imported.slices['test']['positive'] == 0


def test_records_written_before_the_new_fields_are_still_read(tmp_path):
  record = shards_lib.SliceRecord(
    np.zeros((8, 8), np.int16),
    np.ones((8, 8), np.uint8),
    None,
    (0, 0, 8, 8),
    1,
    1.5,
    'p',
    's',
    3,
    'test',
  )
  example = tf.train.Example.FromString(shards_lib.serialize_record(record))
  for name in (
    'lung_mask_kind',
    'case_label',
    'slice_mm',
    'window_hu',
    'manufacturer',
    'kernel',
    'nominal_thickness_mm',
  ):
    del example.features.feature[name]
  parsed = shards_lib.parse_record(example.SerializeToString())
  assert int(parsed['case_label']) == study_lib.UNLABELLED
  assert (
    parsed['kernel'].numpy() == b'' and float(parsed['nominal_thickness_mm']) == 0.0
  )
  assert float(parsed['slice_mm']) == 0.0 and parsed['lung_mask_kind'].numpy() == b''
