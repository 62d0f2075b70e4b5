"""Known kinds: read by study and by slice, and compared with clusters."""

import numpy as np
import pytest
import sklearn.metrics

from covid_tf import errors
from covid_tf.cohort.manifestations import table as table_lib


def read(tmp_path, text):
  path = tmp_path / 'kinds.csv'
  path.write_text(text)
  return table_lib.read_known_kinds(path)


def table(study, slice_index):
  return table_lib.SliceTable(
    ('1.1', '1.2', '1.3'),
    np.array(study),
    np.array(slice_index),
    np.ones(len(study), bool),
    np.zeros(len(study)),
    0.0,
  )


def test_a_slice_of_its_own_kind_comes_before_its_study(tmp_path):
  kinds = read(
    tmp_path, ('study_uid,kind,slice\n1.1,focal,\n1.1,none,4\n1.2,diffuse,0\n')
  )
  assert kinds.of('1.1', 3) == 'focal' and kinds.of('1.1', 4) == 'none'
  assert kinds.of('1.2', 0) == 'diffuse' and kinds.of('1.2', 1) is None
  assert kinds.of('1.3', 0) is None


def test_the_slice_column_may_be_missing(tmp_path):
  assert read(tmp_path, 'kind,study_uid\nfocal,1.1\n').of('1.1', 9) == 'focal'


@pytest.mark.parametrize(
  'rows, words',
  [
    ('1.1,focal,\n1.1,diffuse,\n', 'row 3: .* a second time'),
    ('1.1,focal,2\n1.1,diffuse,02\n', 'row 3: .* a second time'),
    ('1.1,,2\n', 'row 2: .* a blank'),
    (',focal,\n', 'row 2: .* a blank'),
    ('1.1,focal,-1\n', "row 2: slice must be an index .* found '-1'"),
    ('1.1,focal,1.0\n', "found '1.0'"),
  ],
)
def test_refuses_by_row(tmp_path, rows, words):
  with pytest.raises(errors.UsageError, match=words):
    read(tmp_path, f'study_uid,kind,slice\n{rows}')


def test_a_uid_that_became_a_number_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='row 2: study_uid is required as text'):
    read(tmp_path, 'study_uid;kind\n1.2E+55;focal\n')


def test_agreement_is_over_the_slices_whose_kind_is_known():
  kinds = table_lib.KnownKinds({'1.1': 'focal', '1.2': 'diffuse'}, {('1.1', 0): 'none'})
  slices = table([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0])
  labels = np.array([0, 1, 1, 1, 2, 0])
  found = table_lib.agreement(kinds, slices, labels, 3)
  assert found.kinds == ('diffuse', 'focal', 'none')
  assert found.counts.tolist() == [[0, 0, 1], [1, 2, 0], [1, 0, 0]]
  assert found.rand_index == pytest.approx(
    sklearn.metrics.adjusted_rand_score([0, 1, 1, 2, 2], labels[:5])
  )
  assert table_lib.agreement(table_lib.KnownKinds(), slices, labels, 3) is None
