import datetime

import pytest

from covid_tf import errors
from covid_tf.cohort import labels

HEADER = 'study_uid,patient_id,covid,severity,time_point\n'


def read(tmp_path, text, order=()):
  path = tmp_path / 'labels.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return labels.read_labels(path, order)


def refusal(tmp_path, text, order=()):
  with pytest.raises(errors.UsageError) as caught:
    read(tmp_path, text, order)
  message = str(caught.value)
  assert '\n' not in message and 'labels.csv' in message
  return message


def test_reads_what_spreadsheets_write(tmp_path):
  text = (
    '\ufeffStudy_UID , patient_id,covid,severity,time_point,note\r\n'
    ' 1.2.3 ,P1, 1 ,severe ,2020-03-15,"a, b"\r\n'
    ',,,,,\r\n'
    '\r\n'
    '1.2.4,P2,0,,,\r\n'
  )
  first, second = read(tmp_path, text)
  assert (first.row, first.study_uid, first.covid) == (2, '1.2.3', True)
  assert first.severity == 'severe'
  assert first.time_point == datetime.datetime(2020, 3, 15)
  assert (second.row, second.covid, second.severity) == (5, False, None)


@pytest.mark.parametrize('separator', [';', '\t'])
def test_reads_what_spreadsheets_write_where_a_comma_is_the_decimal_mark(
  tmp_path, separator
):
  rows = (
    ('study_uid', '"patient_id"', 'covid', 'note'),
    ('1.2.3', 'P1', '1', '"a, b"'),
  )
  (label,) = read(
    tmp_path, '\ufeff' + ''.join(separator.join(row) + '\r\n' for row in rows)
  )
  assert (label.row, label.study_uid, label.covid) == (2, '1.2.3', True)
  assert label.patient_id == 'P1'


def test_quotes_may_follow_a_space(tmp_path):
  (label,) = read(tmp_path, 'study_uid, "patient_id", "covid"\n1.2, "a, b", "1"\n')
  assert label.patient_id == 'a, b' and label.covid


def test_times_of_several_zones_are_in_their_true_order(tmp_path):
  later, earlier = read(
    tmp_path,
    HEADER + ('1.1,P1,1,,2020-03-15T23:00+00:00\n1.2,P1,1,,2020-03-16T00:30+05:00\n'),
  )
  assert earlier.time_point < later.time_point


def test_optional_columns_may_be_missing(tmp_path):
  (label,) = read(tmp_path, 'patient_id,covid,study_uid\nP1,0,1.2.3\n')
  assert label.study_uid == '1.2.3' and label.severity is None
  assert label.time_point is None


@pytest.mark.parametrize(
  'text, words',
  [
    ('', 'header'),
    ('study_uid,covid\n1.2,1\n', 'missing: patient_id'),
    ('study_uid;patient_id\n1.2;P1\n', 'missing: study_uid, patient_id, covid'),
    ('study_uid;patient_id;covid\n1.2;P1;1;2\n', 'row 2: 3 cells are required'),
    (
      HEADER + '1.2,P1,1,,2020-03-15T10:00Z\n1.3,P2,1,,2020-03-15\n',
      'row 2: time_point has a time zone here and none elsewhere',
    ),
    ('study_uid,patient_id,covid,covid\n1.2,P1,1,1\n', 'twice: covid'),
    (HEADER, 'at least one row'),
    (HEADER + '1.2,P1,1\n', 'row 2: 5 cells are required'),
    (HEADER + '1.2,P1,1,,,\n', 'found 6'),
    (HEADER + '1.2,P1,,,\n', 'row 2: covid must not be blank'),
    (HEADER + ',P1,1,,\n', 'row 2: study_uid must not be blank'),
    (HEADER + '1.2,,1,,\n', 'row 2: patient_id must not be blank'),
    (HEADER + '1.1,P0,0,,\n1.2,P1,ill,,\n', "row 3: covid must be 0 or 1, found 'ill'"),
    (HEADER + '1.2,P1,0,severe,\n', 'row 2: a study with covid 0'),
    (HEADER + '1.2,P1,1,,soon\n', "found 'soon'"),
    (HEADER + '1.2,P1,1,,nan\n', 'finite'),
    (HEADER + '1.2,P1,1,,1\n1.3,P2,1,,2020-01-01\n', 'row 3: time_point is a date'),
    (HEADER + '1.2,P1,1,severe,\n1.3,P2,1,Severe,\n', 'differ only in capitals'),
  ],
)
def test_refuses_what_it_cannot_trust(tmp_path, text, words):
  assert words in refusal(tmp_path, text)


def test_refuses_repeats_and_contradictions_by_row(tmp_path):
  message = refusal(
    tmp_path,
    HEADER
    + (
      '1.1,SECRET1,1,,\n'
      '1.1,SECRET1,1,,\n'
      '1.1,SECRET1,0,,\n'
      '1.2,SECRET2,1,,1\n'
      '1.3,SECRET2,0,,2\n'
    ),
  )
  assert '3 problem(s)' in message
  assert 'row 3: repeats the study of row 2' in message
  assert 'row 4: contradicts row 2 about the same study' in message
  assert 'row 6: covid 0 contradicts row 5' in message
  assert 'SECRET' not in message


def test_several_studies_of_a_patient_need_distinct_times(tmp_path):
  message = refusal(tmp_path, HEADER + '1.1,SECRET,1,,3\n1.2,SECRET,1,,\n')
  assert 'row 3: time_point must not be blank' in message
  message = refusal(tmp_path, HEADER + '1.1,SECRET,1,,3\n1.2,SECRET,1,,3.0\n')
  assert 'row 3: time_point must differ' in message and 'SECRET' not in message


def test_unknown_grade_is_refused_where_the_order_is_stated(tmp_path):
  text = HEADER + '1.1,P1,1,mild,\n1.2,P2,1,sever,\n'
  assert len(read(tmp_path, text)) == 2
  assert "row 3: severity must be one of mild, severe, found 'sever'" in refusal(
    tmp_path, text, ('mild', 'severe')
  )


def test_refuses_other_encodings_and_missing_files(tmp_path):
  assert 'UTF-8' in refusal(tmp_path, HEADER.encode('utf-16'))
  assert 'UTF-8' in refusal(tmp_path, HEADER.encode() + b'1.2,M\xfcller,1,,\n')
  with pytest.raises(errors.UsageError, match='readable CSV'):
    labels.read_labels(tmp_path / 'absent.csv')
  with pytest.raises(errors.UsageError, match='readable CSV'):
    labels.read_labels(tmp_path)


def test_a_spreadsheet_of_another_language_says_the_same(tmp_path):
  text = (
    'sep=;\r\nStudy UID;Patient-ID;COVID;Severity;Time Point;\r\n'
    '1.2.3;P1;TRUE;severe;1,5;\r\n1.2.4;P1;yes;mild;1,25;\r\n'
    '1.2.5;P2;0,0;;;\r\n'
  )
  first, second, third = read(tmp_path, text.encode('utf-16'))
  assert (first.row, first.covid, first.time_point) == (2, True, 1.5)
  assert (second.covid, second.time_point, third.covid) == (True, 1.25, False)


def test_ids_that_a_spreadsheet_made_numbers_are_refused_by_row(tmp_path):
  message = refusal(
    tmp_path, HEADER.replace(',', ';') + ('2,25E+38;P1;1;;\n1.2.3;1,23457E+11;1;;\n')
  )
  assert 'row 2: study_uid is required as text, found 2,25E+38: a spread' in message
  assert 'row 3: patient_id is required as text' in message
  assert '1,23457E+11' not in message


def test_a_label_does_not_show_the_patient(tmp_path):
  (label,) = read(tmp_path, 'study_uid,patient_id,covid\n1.2,SECRET,1\n')
  assert 'SECRET' not in repr(label)
