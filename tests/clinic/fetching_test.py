"""A fetched study is there as a whole, or nothing is."""

import dimse_faults
import pytest

import covid_tf
from covid_tf import cli
from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending


@pytest.fixture(name='fake', scope='module')
def _fake(tmp_path_factory):
  with dimse_faults.FakePacs().running() as fake:
    study = dimse_faults.write_study(tmp_path_factory.mktemp('study'))
    sending.send(sending.read_instances(study), clinic.connect(fake.address))
    yield fake


def test_a_study_and_a_series_and_its_volume(fake, tmp_path, capsys):
  for name, more in (('all', []), ('one', ['--series', dimse_faults.SERIES_UID])):
    output = tmp_path / name
    line = ['fetch', dimse_faults.STUDY_UID, '--from', fake.address]
    assert cli.main([*line, '--output', str(output), *more]) == 0
    assert '8 instances of 1 series' in capsys.readouterr().out
    assert covid_tf.read_ct(output).hu.shape[0] == 8
    assert all(
      path.parent.name == dimse_faults.SERIES_UID for path in output.rglob('*.dcm')
    )
    assert not list(output.rglob('.*'))


@pytest.mark.parametrize(
  'uid, more, status, words',
  [
    ('1.2.3', [], 3, 'no instance of study 1.2.3'),
    (dimse_faults.STUDY_UID, ['--series', '1.2.3'], 3, 'series 1.2.3'),
    ('*', [], 2, 'digits and dots'),
    (dimse_faults.STUDY_UID, ['--series', '../x'], 2, 'digits and dots'),
    (dimse_faults.STUDY_UID, ['--move'], 2, '--own-port'),
  ],
)
def test_what_cannot_be_fetched_leaves_nothing(
  fake, tmp_path, uid, more, status, words, capsys
):
  output = tmp_path / 'out'
  line = ['fetch', uid, '--from', fake.address, '--output', str(output), *more]
  assert cli.main(line) == status
  assert words in capsys.readouterr().err and not output.exists()


def test_a_folder_in_use_stays_as_it_is(fake, tmp_path, capsys):
  (tmp_path / 'mine.txt').write_text('mine')
  line = ['fetch', dimse_faults.STUDY_UID, '--from', fake.address]
  assert cli.main([*line, '--output', str(tmp_path)]) == 2
  assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']
  assert 'new or empty folder' in capsys.readouterr().err


def test_a_full_disk_is_said_and_leaves_nothing(fake, tmp_path, monkeypatch):
  def full(self, content):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pacs.Receiver, 'temporary', lambda self: self._folder / 'x')
  monkeypatch.setattr('pathlib.Path.write_bytes', full)
  with pytest.raises(errors.OutputError, match='no space'):
    fetching.fetch(
      clinic.connect(fake.address), dimse_faults.STUDY_UID, tmp_path / 'out'
    )
  assert list(tmp_path.iterdir()) == []


def test_a_url_of_another_study(capsys, tmp_path):
  url = 'https://pacs.invalid/dw/studies/1.2.4'
  line = ['fetch', '1.2.3', '--from', url, '--output', str(tmp_path / 'out')]
  assert cli.main(line) == 2
  assert 'another study, 1.2.4' in capsys.readouterr().err


def test_c_move_is_none_of_a_url(capsys, tmp_path):
  line = ['fetch', '1.2.3', '--from', 'https://pacs.invalid/dw', '--move']
  assert cli.main([*line, '--output', str(tmp_path / 'out')]) == 2
  assert '--move: AET@host:port is required' in capsys.readouterr().err


def test_echo_says_how_long(fake, capsys):
  assert cli.main(['echo', fake.address]) == 0
  assert capsys.readouterr().out.startswith(f'{fake.address} answers: ')
