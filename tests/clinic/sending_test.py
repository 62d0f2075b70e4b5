"""What is sent, what is refused before anything is, and the commands' words."""

import json
import shutil

import dimse_faults
import odd_series
import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.clinic import sending


@pytest.fixture(name='study')
def _study(tmp_path):
  return dimse_faults.write_study(tmp_path / 'study')


def test_a_result_a_folder_and_a_file(study, tmp_path):
  result = tmp_path / 'result'
  shutil.copytree(study, result / 'dicom')
  (result / 'result.json').write_text('{}')
  (result / 'dicom' / 'note.txt').write_text('no DICOM')
  of_result = sending.read_instances(result)
  assert len(of_result) == 8 and of_result[0].name.endswith('.dcm')
  of_folder = sending.read_instances(study)
  assert [each.sop_instance_uid for each in of_folder] == [
    each.sop_instance_uid for each in of_result
  ]
  # Names of other people's files may be a patient's.
  assert of_folder[0].name == f'CT Image {of_folder[0].sop_instance_uid}'
  assert len(sending.read_instances(of_folder[0].path)) == 1
  first = of_folder[0]
  assert first.study_uid == odd_series.STUDY_UID
  assert first.size_bytes == first.path.stat().st_size


def test_a_result_without_objects_says_how_to_make_them(tmp_path):
  (tmp_path / 'result.json').write_text('{}')
  with pytest.raises(errors.UsageError, match='covid-tf score --dicom'):
    sending.read_instances(tmp_path)


@pytest.mark.parametrize('name', ['', 'missing', 'empty', 'text.txt'])
def test_nothing_to_send(tmp_path, name):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'text.txt').write_text('x')
  with pytest.raises(errors.UsageError, match='required'):
    sending.read_instances(tmp_path / name)


@pytest.mark.parametrize(
  'keyword, value, words',
  [
    ('StudyInstanceUID', '1.2.3', '2 studies'),
    ('PatientID', 'ANOTHER', 'several patients'),
    ('PatientName', 'Other^Name', 'several patients'),
    ('SOPInstanceUID', f'{odd_series.SERIES_UID}.1', 'SOP Instance UID of its own'),
    ('SeriesInstanceUID', '', 'none or an illegal'),
  ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, keyword, value, words):
  slices = odd_series.series()
  setattr(slices[3], keyword, value)
  odd_series.save(slices, tmp_path)
  with pytest.raises(errors.StudyRefusedError, match=words) as caught:
    sending.read_instances(tmp_path)
  assert not any(part in str(caught.value) for part in ('Secret', 'ANOTHER', 'Other'))


def test_the_command_tells_warnings_failures_and_what_is_kept(study, capsys):
  fake = dimse_faults.FakePacs()
  with fake.running():
    line = ['send', str(study), '--to', fake.address]
    assert cli.main(line) == 0
    assert capsys.readouterr().out == f'8 of 8 instances stored at {fake.address}.\n'
    fake.store_status = 0xB000
    assert cli.main([*line, '--verify']) == 0
    printed = capsys.readouterr()
    assert printed.err.count('warning: CT Image') == 8
    assert 'Verified: fetched back and compared.' in printed.out
    fake.store_status = 0xA700
    assert cli.main(line) == 4
    printed = capsys.readouterr()
    assert '8 of 8 instances are not stored' in printed.err and printed.out == ''
    fake.store_status, fake.forgets, fake.kept = 0x0000, True, {}
    assert cli.main([*line, '--verify']) == 4
    printed = capsys.readouterr()
    assert 'are not kept as they were sent' in printed.err
    assert 'Secret' not in printed.err and 'Traceback' not in printed.err


def test_a_url_of_another_study_is_refused_before_anything_is_sent(study, capsys):
  url = 'https://pacs.invalid/dw/studies/1.2.3'
  assert cli.main(['send', str(study), '--to', url]) == 2
  assert 'leads into study 1.2.3' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--connect-timeout', '0'], '--connect-timeout'),
    (['--aet', 'MUCH_TOO_LONG_A_TITLE'], '--aet'),
    (['--own-port', '0'], '--own-port'),
    (['--token-file', 'nowhere'], '--token-file'),
  ],
)
def test_flags_that_are_wrong(study, flags, words, capsys):
  assert cli.main(['send', str(study), '--to', 'https://pacs.invalid/dw', *flags]) == 2
  assert words in capsys.readouterr().err


def test_answers_are_one_line(study):
  instance = sending.read_instances(study)[0]
  answer = pacs.StoreAnswer(instance, pacs.Outcome.FAILED, 0xA700, 'full')
  assert str(answer) == f'{instance.name}: not stored: full (0xA700)'
  assert json.dumps(str(answer))
