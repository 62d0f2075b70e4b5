"""Tables that people write: any dialect gives the same rows, the rest is refused."""

import csv
import io
import pathlib
import zipfile

import hypothesis
from hypothesis import strategies
import pytest

from covid_tf import errors
from covid_tf.storage import tables

_REQUIRED, _OPTIONAL = ('study_uid', 'patient_id'), ('time_point',)
_CELL = strategies.text(
  strategies.characters(
    exclude_categories=('Cs', 'Cc'), include_characters='\n', exclude_characters='='
  ),
  max_size=8,
).map(str.strip)


def _read(tmp_path, text, encoding='utf-8', required=_REQUIRED, optional=_OPTIONAL):
  path = tmp_path / 'table.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
  return tables.read_table(path, required, optional)


def _refusal(tmp_path, text, **options):
  with pytest.raises(errors.UsageError) as caught:
    _read(tmp_path, text, **options)
  message = str(caught.value)
  assert '\n' not in message and 'table.csv' in message
  return message


@hypothesis.settings(
  suppress_health_check=[
    hypothesis.HealthCheck.function_scoped_fixture,
    hypothesis.HealthCheck.too_slow,
  ],
)
@hypothesis.given(
  rows=strategies.lists(
    strategies.tuples(_CELL, _CELL, _CELL).filter(any), min_size=1, max_size=4
  ),
  separator=strategies.sampled_from((',', ';', '\t', '|')),
  line_end=strategies.sampled_from(('\n', '\r\n', '\r')),
  encoding=strategies.sampled_from(
    ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be')
  ),
  quoting=strategies.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
  header=strategies.sampled_from(
    (
      'study_uid patient_id time_point',
      'Study_UID PATIENT_ID Time_Point',
      'study-uid PatientID TIME-POINT',
    )
  ).map(str.split),
  spaces=strategies.sampled_from(('', ' ')),
  blank_columns=strategies.integers(0, 2),
  blank_rows=strategies.booleans(),
)
def test_any_dialect_gives_the_same_rows(
  tmp_path,
  rows,
  separator,
  line_end,
  encoding,
  quoting,
  header,
  spaces,
  blank_columns,
  blank_rows,
):
  def line(cells):
    text = io.StringIO()
    # By default a row ends in \r\n, so that cells with either are quoted.
    csv.writer(text, delimiter=separator, quoting=quoting).writerow(
      [*cells, *[''] * blank_columns]
    )
    return text.getvalue().removesuffix('\r\n')

  blank = [line(['', '', ''])] if blank_rows else []
  stated = [f'sep={separator}'] if separator == '|' else []
  header_line = f'{spaces}{separator}{spaces}'.join(header) + (
    separator * blank_columns
  )
  text = line_end.join(
    [*stated, *blank, header_line, *blank, *map(line, rows), *blank, '']
  )
  found = _read(tmp_path, text, encoding)
  assert [tuple(row.cells.values()) for row in found] == rows
  first = 1 + len(blank) + 1 + len(blank)
  assert [row.number for row in found] == list(range(first, first + len(rows)))


@pytest.mark.parametrize('stated', ['sep=;', 'SEP=;', '"sep=;"', 'sep=;;;', 'sep='])
def test_a_line_that_states_the_separator_does_not_count(tmp_path, stated):
  (row,) = _read(tmp_path, f'{stated}\r\nstudy_uid;patient_id\r\n1.2;P1\r\n')
  assert row.cells['study_uid'] == '1.2' and row.number == 2


def test_a_stated_separator_that_is_not_there_gives_way(tmp_path):
  (row,) = _read(tmp_path, 'sep=;\nstudy_uid,patient_id\n1.2,P;1\n')
  assert row.cells['patient_id'] == 'P;1'


def test_spaces_stand_on_both_sides_of_quotes(tmp_path):
  (row,) = _read(tmp_path, ' "study_uid" , "patient_id" \n "1.2" , "a, ""b"" , c" \n')
  assert row.cells['patient_id'] == 'a, "b" , c' and row.cells['study_uid'] == '1.2'


def test_a_cell_that_a_formula_keeps_as_text_is_that_text(tmp_path):
  (row,) = _read(tmp_path, 'study_uid;patient_id\n="1.2";"=""007"""\n')
  assert (row.cells['study_uid'], row.cells['patient_id']) == ('1.2', '007')


def test_the_name_as_wanted_comes_before_one_like_it(tmp_path):
  (row,) = _read(tmp_path, 'Study UID,study_uid,patient_id\nother,1.2,P1\n')
  assert row.cells['study_uid'] == '1.2'
  message = _refusal(tmp_path, 'Study UID,StudyUID,patient_id\nother,1.2,P1\n')
  assert 'found twice: study_uid' in message


@pytest.mark.parametrize(
  'row, fits',
  [
    ('1.2,P1', True),
    ('1.2,P1,', True),
    ('1.2,P1,,,,', True),
    ('1.2', False),
    ('1.2,P1,,,,x', False),
  ],
)
def test_blank_columns_at_the_end_may_end_early(tmp_path, row, fits):
  text = f'study_uid,patient_id,,\n{row}\n'
  if fits:
    assert _read(tmp_path, text)[0].cells['patient_id'] == 'P1'
  else:
    assert 'row 2: 4 cells are required' in _refusal(tmp_path, text)


@pytest.mark.parametrize(
  'separator, text, number',
  [
    (';', '1,5', 1.5),
    (';', '1,500', 1.5),
    (';', '1.5', 1.5),
    ('\t', '1,5', 1.5),
    (',', '1.5', 1.5),
    ('\t', '1,500', None),
    (',', '1,5', None),
    (';', 'x', None),
  ],
)
def test_a_decimal_comma_where_the_separator_is_none(separator, text, number):
  row = tables.TableRow(2, {'time_point': text}, separator)
  if number is None:
    with pytest.raises(ValueError):
      row.decimal('time_point')
  else:
    assert row.decimal('time_point') == number


@pytest.mark.parametrize(
  'value, texts',
  [
    (True, ('1', '1.0', '1,0', '1.00', 'TRUE', 'True', 'yes', 'YES')),
    (False, ('0', '0.0', '0,0', 'FALSE', 'false', 'no', 'No')),
    (None, ('', '2', '10', '1.5', '01', '-1', 'ja', 'x', '1.')),
  ],
)
def test_truth_values(value, texts):
  assert [tables.truth(text) for text in texts] == [value] * len(texts)


@pytest.mark.parametrize(
  'text',
  [
    '2,25E+38',
    '2.25E+38',
    '1.2E+55',
    '2e+41',
    '1.2345678901234567e+38',
    '225329800165300000000000000000000000',
    '22532980016530000000000.00',
  ],
)
def test_a_uid_that_became_a_number_is_named(text):
  problem = tables.uid_problem('study_uid', text)
  assert 'spreadsheet has turned the UID into a number' in problem and text in problem
  assert 'format the column as text' in problem and problem.startswith('study_uid')
  secret = tables.patient_problem('patient_id', text)
  assert 'spreadsheet' in secret and text not in secret


@pytest.mark.parametrize(
  'text',
  [
    '',
    '1.2.840.10008.1',
    '2.25.32980016530000000000000',
    '12',
    '1E5',
    'nifti-1e9',
    '2.25',
    '12345678901234567890123',
    '1000000',
  ],
)
def test_other_uids_and_names_are_no_numbers(text):
  assert tables.uid_problem('study_uid', text) is None
  assert tables.patient_problem('patient_id', text) is None


def _zip(*names):
  data = io.BytesIO()
  with zipfile.ZipFile(data, 'w') as archive:
    for name in names:
      archive.writestr(name, '')
  return data.getvalue()


@pytest.mark.parametrize(
  'data, words',
  [
    (_zip('[Content_Types].xml', 'xl/workbook.xml'), 'an Excel workbook (.xlsx)'),
    (_zip('mimetype', 'content.xml'), 'an OpenDocument spreadsheet (.ods)'),
    (_zip('labels.csv'), 'a zip archive'),
    (b'PK\3\4 cut short', 'a zip archive'),
    (bytes.fromhex('d0cf11e0a1b11ae1') + bytes(512), 'an Excel workbook (.xls)'),
    (b'\x1f\x8b\x08' + bytes(20), 'a gzip archive'),
    (b'<html><table>', 'a page of HTML or XML'),
  ],
)
def test_a_document_is_named_as_what_it_is(tmp_path, data, words):
  message = _refusal(tmp_path, data)
  assert f'found {words}' in message and 'save it as CSV' in message


def test_a_workbook_beside_a_missing_table_is_named(tmp_path):
  (tmp_path / 'labels.xlsx').touch()
  with pytest.raises(errors.UsageError, match='save labels.xlsx, which lies beside'):
    tables.read_table(tmp_path / 'labels.csv', _REQUIRED)
  with pytest.raises(errors.UsageError, match='No such file or directory[.]$'):
    tables.read_table(tmp_path / 'kinds.csv', _REQUIRED)


@pytest.mark.parametrize(
  'text, words',
  [
    ('', 'found no columns'),
    ('study_uid\n1\n', 'missing: patient_id; found 1 column'),
    ('study_uid,patient_id\n', 'at least one row'),
    ('study_uid,patient_id\n1.2,"SECRET\n', 'row 2: cells separated by commas'),
    ('study_uid;patient_id\n\n1.2;"SEC"RET\n', 'row 3: cells separated by semicolons'),
    ('study_uid,patient_id\n1.2,SECRET,x\n', 'row 2: 2 cells are required'),
    (b'study_uid,patient_id\n1.2,M\xfcller SECRET\n', 'other bytes in line 2'),
    (b'study_uid,patient_id\n1.2,P\0 SECRET\n', 'found zero bytes'),
    ('SECRET,1.2\n', 'a header with columns named study_uid, patient_id'),
  ],
)
def test_a_refusal_names_the_row_and_no_cell(tmp_path, text, words):
  message = _refusal(tmp_path, text)
  assert words in message and 'SECRET' not in message


def test_a_list_may_quote_its_header_and_leave_out_cells(tmp_path):
  text = 'path;series_uid\na\nb;1.2\nc;1.3;\n'
  rows = tables.parse('list.csv', text, ('path',), ('series_uid',), is_list=True)
  assert [tuple(row.cells.values()) for row in rows] == [
    ('a', ''),
    ('b', '1.2'),
    ('c', '1.3'),
  ]
  with pytest.raises(errors.UsageError, match='column named path .*; found folder'):
    next(tables.parse('list.csv', 'folder\na\n', ('path',), is_list=True))


@pytest.mark.parametrize(
  'text, found',
  [
    ('in/a', 'in/a'),
    ('"in/a b"', 'in/a b'),
    ("'in/a'", 'in/a'),
    ('"', '"'),
    ('"a', '"a'),
  ],
)
def test_paths_are_taken_out_of_quotes(tmp_path, text, found):
  assert tables.path_of(text, tmp_path) == tmp_path / found


def test_a_path_may_begin_at_home_and_a_file_of_that_name_comes_first(
  tmp_path, monkeypatch
):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  for text in ('~/ct', '"~/ct"'):
    assert tables.path_of(text, tmp_path) == tmp_path / 'home' / 'ct'
  assert tables.path_of('/a/b', tmp_path) == pathlib.Path('/a/b')
  assert tables.path_of('~nobody-of-that-name/a', tmp_path).name == 'a'
  (tmp_path / '"a"').touch()
  assert tables.path_of('"a"', tmp_path) == tmp_path / '"a"'


def test_lines_end_as_on_any_system():
  assert tables.read_lines(' a\r\n\r\nb\rc\u2028d\n') == ['a', 'b', 'c\u2028d']
