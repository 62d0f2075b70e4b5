"""Splits: no patient in two sets, proportions kept, the same from the same seed."""

import collections
import csv
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from covid_tf import errors
from covid_tf.datasets import splits

_STRATA = st.dictionaries(
  st.text(min_size=1, max_size=6),
  st.sampled_from(('covid', 'normal', 'severe')),
  min_size=12,
  max_size=80,
)
_SHARES = {'train': 0.7, 'validation': 0.15, 'test': 0.15}


@given(_STRATA, st.integers(0, 1000))
def test_every_patient_is_in_one_set_in_proportion(stratum_of, seed):
  split = splits.by_fractions(stratum_of, _SHARES, seed)
  counts = split.counts()
  assert set(split.set_of) == set(stratum_of)
  assert sum(sum(row.values()) for row in counts.values()) == len(stratum_of)
  for stratum, total in collections.Counter(stratum_of.values()).items():
    for name, share in _SHARES.items():
      # Rounding, and the one patient that a set must have of three.
      assert abs(counts[name][stratum] - share * total) < 1.2
      if total >= 3:
        assert counts[name][stratum] >= 1


def test_a_set_that_got_more_than_its_share_gives_nothing_back():
  strata = ['covid'] * 9 + ['normal'] * 3 + ['severe']
  patients = {f'p{i}': stratum for i, stratum in enumerate(strata)}
  counts = splits.by_fractions(patients, _SHARES, 0).counts()
  assert [list(row.values()) for row in counts.values()] == [
    [6, 1, 1],
    [2, 1, 0],
    [1, 1, 0],
  ]


def test_strata_of_one_patient_do_not_all_go_to_the_largest_set():
  patients = {f'p{i}': f'stratum{i:02d}' for i in range(20)}
  counts = splits.by_fractions(patients, _SHARES, 0).counts()
  assert [sum(row.values()) for row in counts.values()] == [14, 3, 3]


@given(_STRATA, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_patients_changes_nothing(stratum_of, seed, random):
  shuffled = list(stratum_of.items())
  random.shuffle(shuffled)
  first = splits.by_fractions(stratum_of, _SHARES, seed)
  assert first.set_of == splits.by_fractions(dict(shuffled), _SHARES, seed).set_of


@given(_STRATA, st.integers(2, 6))
def test_folds_are_of_one_size(stratum_of, folds):
  split = splits.k_folds(stratum_of, folds, 3)
  sizes = [sum(row.values()) for row in split.counts().values()]
  assert len(sizes) == folds and max(sizes) - min(sizes) <= 3
  assert split.set_of.keys() == stratum_of.keys()


def test_another_seed_draws_other_sets():
  patients = {f'p{i}': 'covid' for i in range(40)}
  one, two = (splits.by_fractions(patients, _SHARES, seed).set_of for seed in (0, 1))
  assert one != two


def test_too_few_patients_are_refused_with_the_set_that_stays_empty():
  with pytest.raises(errors.UsageError, match='found none in validation, test'):
    splits.by_fractions({'a': 'covid'}, _SHARES, 0)


def test_given_sets_with_a_patient_in_two_are_refused_without_naming_him():
  rows = [('Doe^John', 'covid', 'train'), ('Doe^John', 'covid', 'test')]
  with pytest.raises(errors.UsageError, match='found 1 in two') as refused:
    splits.given(rows)
  assert 'Doe' not in str(refused.value)
  with pytest.raises(errors.UsageError, match='found one without'):
    splits.given([('a', 'covid', '')])


def test_given_sets_are_kept():
  split = splits.given([('a', 'x', 'train'), ('a', 'x', 'train'), ('b', 'x', 'test')])
  assert split.set_of == {'a': 'train', 'b': 'test'}


def test_a_split_is_stored_for_people_and_programs(tmp_path):
  split = splits.by_fractions({f'p{i}': 'covid' for i in range(8)}, {'a': 3, 'b': 1}, 5)
  splits.write(split, tmp_path, {'a': {'positive': 4}, 'b': {'positive': 1}})
  rows = list(csv.DictReader((tmp_path / splits.CSV_NAME).open()))
  assert {row['patient']: row['set'] for row in rows} == split.set_of
  stored = json.loads((tmp_path / splits.JSON_NAME).read_text())
  assert stored['seed'] == 5 and stored['slices']['a'] == {'positive': 4}
  assert stored['patients'] == {'a': {'covid': 6}, 'b': {'covid': 2}}


@pytest.mark.parametrize(
  'texts',
  [['train'], ['train=x'], ['a=1', 'a=2'], ['a=-1'], ['a=0'], ['../a=1'], ['a=nan']],
)
def test_shares_that_are_none_are_refused(texts):
  with pytest.raises(errors.UsageError, match='NAME=SHARE'):
    splits.parse_shares(texts)
