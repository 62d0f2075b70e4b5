"""Defaults of flags from a site's file: what is taken, left out and refused."""

import argparse
import pathlib

import pytest

from covid_tf import cli
from covid_tf import commands
from covid_tf import errors
from covid_tf.commands import site_configuration

_FILE = """
patient_key_file = "keys/site"
[models]
server = "gpu1:8500"
tls_ca = "/etc/ca.pem"
timeout = 30
[analysis]
thickness_mm = 5
slice_threshold = 0.4
case_threshold = 7.5
[dicom]
to = "https://pacs.example/dicom-web"
"""


@pytest.fixture(name='path')
def _path(tmp_path, monkeypatch):
  path = tmp_path / 'site.toml'
  path.write_text(_FILE)
  monkeypatch.setenv(site_configuration.VARIABLE, str(path))
  return path


def _parse(line: str, command: str = 'score') -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  commands.module('node' if command == 'node' else 'score').add_arguments(parser)
  site_configuration.add_arguments(parser)
  return site_configuration.parse(parser, command, line.split())


def test_what_the_file_says_is_a_default(path):
  found = _parse('study --output out')
  assert found.server == 'gpu1:8500' and found.tls_ca == '/etc/ca.pem'
  assert found.timeout == 30.0  # As the flag's own type makes it.
  assert found.thickness_mm == '5' and found.slice_threshold == '0.4'
  assert found.case_threshold == '7.5' and found.map_threshold is None
  assert found.patient_key_file == str(path.parent / 'keys' / 'site')


def test_a_flag_counts_more_than_the_file(path):
  del path
  found = _parse('study --output out --thickness-mm 3 --slice-threshold 0.5')
  assert (found.thickness_mm, found.slice_threshold) == ('3', '0.5')
  assert found.case_threshold == '7.5'
  assert _parse('study --output out --every-slice').thickness_mm is None


@pytest.mark.parametrize('source', ['--models exported', '--server other:1'])
def test_another_source_of_models_leaves_that_table_out(source, path):
  del path
  found = _parse(f'study --output out {source}')
  assert found.tls_ca is None and found.timeout == 120.0
  assert found.server == ('other:1' if 'other' in source else None)
  assert found.thickness_mm == '5'


def test_a_switch_of_the_file_gives_way_to_a_thickness(path):
  path.write_text('[analysis]\nevery_slice = true\n')
  assert _parse('study --output out').every_slice
  assert not _parse('study --output out --thickness-mm 3').every_slice


def test_a_command_takes_only_its_tables(path):
  del path
  assert _parse('study --output out', 'inspect').server is None


def test_a_flag_that_the_file_gives_is_not_required(path):
  def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('--to', required=True)
    site_configuration.add_arguments(parser)
    return site_configuration.parse(parser, 'send', [])

  assert parse().to == 'https://pacs.example/dicom-web'
  path.write_text('[analysis]\n')
  with pytest.raises(SystemExit):
    parse()


def test_what_is_for_one_address_of_the_node_is_not_sent_to_another(path):
  path.write_text(
    '[node]\noutput = "out"\nto = "https://a/dw"\npacs_token_file = "of a"\n'
    'source_pacs = "https://b/dw"\nsource_token_file = "of b"\nport = 104\n'
  )
  of_both = _parse('', 'node')
  assert of_both.pacs_token_file.endswith('of a')
  assert of_both.source_token_file.endswith('of b')
  other = _parse('--to https://c/dw', 'node')
  assert (other.to, other.pacs_token_file) == ('https://c/dw', None)
  assert other.source_token_file.endswith('of b') and other.port == 104
  other = _parse('--source-pacs https://c/dw', 'node')
  assert (other.source_pacs, other.source_token_file) == ('https://c/dw', None)
  assert other.pacs_token_file.endswith('of a')


@pytest.mark.parametrize(
  'name', ['score', 'batch', 'check', 'manifestations', 'send', 'node']
)
def test_keys_are_flags_of_the_commands(name):
  parser = argparse.ArgumentParser()
  commands.module(name).add_arguments(parser)
  flags = {action.dest for action in parser._actions}
  for title, table in site_configuration._TABLES.items():
    if name in table.commands and (title, name) != ('analysis', 'manifestations'):
      missing = set(table.kinds) - flags
      assert missing <= ({'case_threshold'} if name == 'manifestations' else set())


def test_where_the_file_is_looked_for(path, tmp_path, monkeypatch):
  assert _parse('s --output o --no-config').thickness_mm is None
  other = tmp_path / 'other.toml'
  other.write_text('[analysis]\nthickness_mm = 2\n')
  assert _parse(f's --output o --config {other}').thickness_mm == '2'
  monkeypatch.delenv(site_configuration.VARIABLE)
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'none'))
  assert _parse('s --output o').thickness_mm is None
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
  path.rename(tmp_path / site_configuration.FILE_NAME)
  assert _parse('s --output o').thickness_mm == '5'


@pytest.mark.parametrize(
  'text, words',
  [
    (
      'thicknes_mm = 5',
      'unknown key thicknes_mm; known are patient_key_file, [models]',
    ),
    ('thickness_mm = 5', '[node]; thickness_mm stands in [analysis].'),
    ('[models]\nto = "a"', 'token_file, timeout; to stands in [dicom] and [node].'),
    ('[analysis]\nthicknes_mm = 5', 'unknown key thicknes_mm of [analysis]'),
    ('[analysis]\nthickness_mm = "5"', 'thickness_mm of [analysis] must be a number'),
    ('[analysis]\nthickness_mm = true', 'must be a number, found True'),
    ('[analysis]\nevery_slice = 1', 'must be true or false, found 1'),
    ('[analysis]\ncase_threshold = []', 'case_threshold of [analysis] must be a text'),
    ('[models]\nserver = ""', 'server of [models] must be a text'),
    ('[models]\nserver = "a:1"\nmodels = "m"', 'either server or models'),
    ('models = "exported"', '[models] must be a table'),
    ('[elsewhere]\nx = 1', 'unknown key elsewhere; known are patient_key_file, [m'),
    ('a = ', 'TOML in UTF-8 is required'),
    (b'\xff', 'TOML in UTF-8 is required'),
  ],
)
def test_what_is_no_configuration_is_refused(text, words, path):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(errors.UsageError) as caught:
    site_configuration.read(path)
  assert words in str(caught.value) and str(path) in str(caught.value)


def test_a_named_file_that_is_missing_is_refused(tmp_path, capsys):
  gone = tmp_path / 'gone.toml'
  line = ['score', 's', '--output', 'o', '--config', str(gone)]
  assert cli.main(line) == 2
  printed = capsys.readouterr().err
  assert printed.startswith('covid-tf score: ') and str(gone) in printed


def test_the_docs_show_a_file_that_is_read(path):
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'command_line.md'
  path.write_text(page.read_text().partition('```toml\n')[2].partition('```')[0])
  tables = {'', 'models', 'analysis', 'dicom', 'node'}
  assert set(site_configuration.read(path)) == tables


@pytest.mark.parametrize(
  'text, line',
  [
    ('[analysis]\nevery_slice = true\nthickness_mm = 3\n', 'score s --output o'),
    ('[analysis]\nthickness_mm = 3\nevery_slice = true\n', 'batch s --output o'),
  ],
)
def test_flags_that_exclude_each_other_do_so_in_the_file(text, line, path, capsys):
  path.write_text(text)
  assert cli.main(line.split()) == 2
  (said,) = capsys.readouterr().err.splitlines()
  assert str(path) in said and 'found both' in said
  assert 'thickness_mm of [analysis]' in said and 'every_slice of [analysis]' in said
  path.write_text('[analysis]\nevery_slice = false\nthickness_mm = 3\n')
  assert _parse('study --output out').thickness_mm == '3'


def test_a_wrong_value_is_found_in_its_file(path, capsys):
  path.write_text('[analysis]\nslice_threshold = 1.5\n')
  assert cli.main('score study --output out'.split()) == 2
  assert capsys.readouterr().err.endswith(f"found '1.5'. It stands in {path}.\n")
  assert cli.main('score study --output out --slice-threshold 2'.split()) == 2
  assert str(path) not in capsys.readouterr().err
