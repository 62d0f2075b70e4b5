import csv
import io

from hypothesis import given
from hypothesis import strategies as st
import pytest

from covid_tf import errors
from covid_tf.cohort.review import decisions

_FOLDERS = ('site/1.2', 'site/1.3', 'three', '00123')


def _read(tmp_path, text, folders=_FOLDERS):
  path = tmp_path / 'review.csv'
  path.write_text(text, 'utf-8')
  return decisions.read_review(path, folders)


def test_decisions_are_read_and_counted(tmp_path):
  review = _read(
    tmp_path,
    'result,decision,comment\n'
    'site/1.2,accepted,\n'
    'site/1.3,Rejected,"motion, breath"\n'
    'three,REJECTED,\n',
  )
  assert review.counts() == {'accepted': 1, 'rejected': 2, 'not reviewed': 1}
  assert review.rejected() == {
    'site/1.3': 'motion, breath',
    'three': decisions.NO_REASON,
  }
  assert review.reasons() == {'motion, breath': 1, decisions.NO_REASON: 1}
  left_out, open_ = review.messages()
  assert '2 of 4 (motion, breath: 1; no reason given: 1)' in left_out
  assert 'not reviewed: 1 of 4; they are taken' in open_


def test_as_spreadsheets_write_it(tmp_path):
  review = _read(
    tmp_path,
    '\ufeffResult;Decision;Comment;other\r\n'
    'site\\1.2;accepted;;x\r\n./three/;rejected;dunn;\r\n="00123";accepted;;\r\n',
  )
  assert review.counts() == {'accepted': 2, 'rejected': 1, 'not reviewed': 1}
  assert list(review.rejected()) == ['three']
  assert _read(tmp_path, 'result,decision\nthree,accepted\n').messages()


def test_everything_accepted_says_nothing(tmp_path):
  rows = ''.join(f'="{folder}",accepted\n' for folder in _FOLDERS)
  assert _read(tmp_path, f'result,decision\n{rows}').messages() == ()


@pytest.mark.parametrize(
  'rows, words',
  [
    ('1.2,accepted', "row 2: no result in a folder '1.2'"),
    ('site/1.2,ok', "row 2: the decision 'ok'"),
    ('site/1.2,1', "row 2: the decision '1'"),
    ('three,accepted\nthree/,rejected', "row 3: 'three' again, after row 2"),
    (',accepted', "row 2: no result in a folder ''"),
    ('\n'.join(f'{i}x,accepted' for i in range(13)), 'and 3 more; correct'),
    ('123,accepted', "no result in a folder '123'"),  # A spreadsheet's 00123.
  ],
)
def test_other_rows_are_refused(tmp_path, rows, words):
  with pytest.raises(errors.UsageError) as refused:
    _read(
      tmp_path,
      f'result,decision,comment\n{rows}\n'.replace(',accepted', ',accepted,')
      .replace(',rejected', ',rejected,')
      .replace(',ok', ',ok,')
      .replace(',1\n', ',1,\n'),
    )
  assert words in str(refused.value) and 'review.csv: ' in str(refused.value)


def test_other_tables_are_refused(tmp_path):
  for text, words in (
    ('study,decision\na,accepted\n', 'missing: result'),
    ('result,decision\n', 'at least one row'),
  ):
    with pytest.raises(errors.UsageError, match=words):
      _read(tmp_path, text)
  with pytest.raises(errors.UsageError, match='No such file'):
    decisions.read_review(tmp_path / 'nothing.csv', _FOLDERS)


_NAMES = st.text(
  st.characters(
    codec='utf-8', exclude_characters='/\\"=\r\n\0', exclude_categories='C'
  ),
  min_size=1,
  max_size=12,
).filter(lambda name: name.strip() == name and name not in ('.', '..'))


@given(
  st.dictionaries(
    _NAMES,
    st.tuples(
      st.sampled_from(['', 'accepted', 'rejected']),
      st.sampled_from(['', 'motion; breath', 'a "quoted" word', '3,5']),
    ),
    min_size=1,
    max_size=5,
  )
)
def test_a_template_is_read_back(tmp_path_factory, made):
  path = tmp_path_factory.mktemp('review') / 'review.csv'
  expected = {folder: decisions.Decision(*found) for folder, found in made.items()}
  path.write_bytes(
    decisions.template(
      decisions.Row(folder, found, 12.5, 'a | b') for folder, found in expected.items()
    )
  )
  assert dict(decisions.read_review(path, made).decisions) == expected


def test_the_template_is_a_plain_table():
  row = decisions.Row('2020-03', decisions.Decision(''), 1234.5678, 'a; b, "c"')
  text = decisions.template([row]).decode('utf-8-sig')
  header, cells = csv.reader(io.StringIO(text))
  assert header == ['result', 'decision', 'comment', 'corona_score_cm3', 'doubts']
  # Else a spreadsheet makes a date of it.
  assert cells == ['="2020-03"', '', '', '1235', 'a; b, "c"']
