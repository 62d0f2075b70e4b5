"""`covid-tf node`: flags become settings, and a slip is found before it listens."""

import pathlib

import dimse_faults
import pytest

from covid_tf import cli
from covid_tf.commands import archive_scorer
from covid_tf.node import service


@pytest.fixture(name='made', autouse=True)
def _made(monkeypatch):
  """What nodes were made with; none of them runs."""
  made = []

  class _Node:
    def __init__(self, settings, make_scorer, *, destination, source):
      made.append((settings, make_scorer, destination, source))

    def run(self, on_open):
      on_open(104)

    def end(self):
      pass

  monkeypatch.setattr(service, 'Node', _Node)
  return made


def _run(tmp_path, *flags) -> int:
  line = ['node', '--no-config', '--output', str(tmp_path / 'out')]
  return cli.main([*line, *map(str, flags)])


def test_defaults_are_shown_and_used(tmp_path, made, capsys):
  assert _run(tmp_path) == 0
  ((settings, _, destination, source),) = made
  assert settings == service.Settings(
    tmp_path / 'out', tmp_path / 'out' / 'spool', processes=settings.processes
  )
  assert destination is source is None
  assert 'COVIDTF listens at 127.0.0.1:104' in capsys.readouterr().err
  assert cli.main(['node', '--help']) == 0
  shown = ' '.join(capsys.readouterr().out.split())
  for flag, default in (
    ('--settle', 60),
    ('--incomplete-after', 3600),
    ('--most-associations', 32),
    ('--largest-instance', 2048),
    ('--idle-timeout', 300),
    ('--reserve', 2048),
    ('--most-waiting', 200),
    ('--keep-studies', 7),
    ('--end-within', 60),
  ):
    assert f'(default {default})' in shown.split(f' {flag} N ')[-1][:160], flag


def test_flags_and_a_sites_file_say_what_the_node_does(tmp_path, made):
  config = tmp_path / 'site.toml'
  config.write_text(
    '[node]\ncallers = "CT1, CT2"\nsettle = 90\nport = 104\nspool = "kept"\n'
    'to = "PACS@host:104"\n'
  )
  line = ['node', '--config', str(config), '--output', str(tmp_path / 'out')]
  flags = ['--host', '0.0.0.0', '--settle', '30', '--source-pacs', 'PACS@host:104']
  limits = ['--largest-instance', '100', '--keep-results', '365', '--reserve', '500']
  assert cli.main([*line, *flags, *limits]) == 0
  ((settings, _, destination, source),) = made
  assert settings.listener.callers == {'CT1', 'CT2'}
  assert settings.listener.host == '0.0.0.0' and settings.listener.port == 104
  assert settings.listener.largest_instance_bytes == 100 << 20
  assert settings.reserve_bytes == 500 << 20
  assert settings.rules.settle_s == 30 and settings.rules.asks_source
  assert settings.keep.results_days == 365
  assert settings.spool_folder == tmp_path / 'kept'
  assert destination().name == source().name == 'PACS@host:104'


def test_models_are_asked_with_the_objects_that_are_asked_for(
  tmp_path, made, monkeypatch
):
  asked = []
  monkeypatch.setattr(archive_scorer, 'make_scorer', lambda *given: asked.append(given))
  assert _run(tmp_path, '--server', 'a:1', '--dicom-map', 'float32') == 0
  made[0][1]()
  ((arguments, _, dicom),) = asked
  assert arguments.server == 'a:1' and dicom.map_form == 'float32'


@pytest.mark.parametrize(
  'flags, words',
  [
    ('--host 0.0.0.0', '--any-caller'),
    ('--callers CT1,', '--callers'),
    ('--settle 0', '--settle'),
    ('--settle 100 --incomplete-after 10', '--incomplete-after'),
    ('--port 70000', '--port'),
    ('--health-port 70000', '--health-port'),
    ('--health-port -1', '--health-port'),
    ('--most-associations 0', '--most-associations'),
    ('--most-waiting 0', '--most-waiting'),
    ('--reserve -1', '--reserve'),
    ('--spool {out}', '--spool'),
    ('--spool {out}/studies/in', '--spool'),
    ('--keep-studies -1', '--keep-studies'),
    ('--processes 0', '--processes'),
    ('--to PACS', '--to'),
    ('--source-pacs http://', '--source-pacs'),
    ('--to PACS@host:104 --pacs-tls-key gone.pem', '--pacs-tls-key'),
    ('--to https://host/dicom-web --pacs-token-file gone', '--pacs-token-file'),
    ('--source-pacs https://host/dw --source-token-file gone', '--source-token-file'),
    ('--source-pacs PACS@host:104 --source-tls-key gone.pem', '--source-tls-key'),
    ('--pacs-token-file gone', 'belongs to --to'),
    ('--source-tls', 'belongs to --source-pacs'),
    ('--listen-tls', '--listen-tls-certificate'),
    ('--listen-tls-key gone.pem', 'belongs to --listen-tls'),
    ('--server a:1,', '--server'),
    ('--select nonsense', 'selection rule'),
    ('--dicom-map uint8', 'uint16'),
    ('--accept *', '--accept'),
    ('--accept 1.2.3', 'found none'),
  ],
)
def test_wrong_use_is_said_in_one_line(tmp_path, made, capsys, flags, words):
  assert _run(tmp_path, *flags.format(out=tmp_path / 'out').split()) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('covid-tf node: ') and words in line
  assert not made and not (tmp_path / 'out').exists()


def test_a_listener_with_tls_reads_its_files_first(tmp_path, made, capsys):
  folder = dimse_faults.certificates(tmp_path).folder
  files = {'ca': 'ca.pem', 'certificate': 'me.pem'}
  flags = [
    part
    for name, file in files.items()
    for part in (f'--listen-tls-{name}', folder / file)
  ]
  assert _run(tmp_path, '--listen-tls', *flags) == 0
  assert made[0][0].listener.tls.ca_file == str(folder / 'ca.pem')
  pathlib.Path(folder / 'me.pem').write_text('nothing')
  assert _run(tmp_path, '--listen-tls', *flags) == 2
  assert '--listen-tls-certificate' in capsys.readouterr().err


def test_a_study_of_the_spool_is_accepted(tmp_path, made, capsys):
  (tmp_path / 'out' / 'spool' / 'studies' / '1.2.3').mkdir(parents=True)
  assert _run(tmp_path, '--accept', '1.2.3') == 0
  assert 'accepted as whole' in capsys.readouterr().out and not made
  assert (tmp_path / 'out' / 'accepted' / '1.2.3').exists()
