"""Each command and snippet of the documentation runs as typed, or says why not."""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from unittest import mock

from absl import app
from absl import flags
import cohort_files
import dicom_series
import free_ports
import keras
import nibabel as nib
import numpy as np
import pytest
import snippets
import synthetic_case
import tiny_models

import covid_tf
from covid_tf import cli
from covid_tf.predictors import in_process
from covid_tf.readers import label_maps
from covid_tf.server import configuration
from covid_tf.server import serving
from covid_tf.storage import maps

_SHAPE = (24, 51, 77)
_BLOCKS = [block for page in snippets.pages() for block in snippets.blocks(page)]
_RUN = [
  block for block in _BLOCKS if block.language in snippets.RUN and not block.needs
]
_COMMANDS = [(block, words) for block in _BLOCKS for words in block.commands()]
_ADDRESSES = re.compile(r'(?:localhost|models\.example\.org):8500')


def test_something_is_read():
  assert {'README.md', 'docs/serving.md', 'CONTRIBUTING.md'} <= set(snippets.pages())
  assert len(_RUN) >= 20 and len(_COMMANDS) >= 60
  assert any(words[:2] == ['covid-tf', 'score'] for _, words in _COMMANDS)


@pytest.mark.parametrize('block', _BLOCKS, ids=str)
def test_blocks_say_what_they_are(block):
  assert block.language in (*snippets.RUN, *snippets.SHOWN), f'{block}: language?'
  assert set(block.needs) <= snippets.NEEDS, f'{block}: needs {block.needs}'
  if block.language in snippets.SHOWN:
    # A command that is shown as a text would be run by nobody.
    assert not re.search(r'^(covid-tf|python|pip|docker) ', block.code, re.MULTILINE)
  elif block.language == 'bash' and not block.needs:
    for line in block.lines():
      assert line.startswith('covid-tf '), f'{block}: {line}: what it needs?'


@pytest.mark.parametrize('block,words', _COMMANDS, ids=lambda value: str(value)[:60])
def test_flags_are_those_of_the_parser(block, words, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
  program, *arguments = (word.replace('$seed', '1') for word in words)
  if program == 'covid-tf':
    if arguments and not arguments[0].startswith('-'):
      command = importlib.import_module(f'covid_tf.commands.{arguments[0]}')
      monkeypatch.setattr(command, 'run', lambda arguments: 0)
    assert cli.main(arguments) == 0, f'{block}: {words}'
    return
  path = snippets.ROOT / program
  for folder in (snippets.ROOT / 'tools', path.parent):
    monkeypatch.syspath_prepend(str(folder))
  if 'argparse' in path.read_text('utf-8'):
    _parse_argparse(path, arguments)
  else:
    _parse_absl(path, arguments)


class _Parsed(Exception):
  """A script's parser took its arguments."""


def _parse_argparse(path, arguments):
  parse = argparse.ArgumentParser.parse_args

  def parse_and_stop(parser, args=None, namespace=None):
    parse(parser, args, namespace)
    raise _Parsed

  with (
    mock.patch.object(sys, 'argv', [str(path), *arguments]),
    mock.patch.object(argparse.ArgumentParser, 'parse_args', parse_and_stop),
    pytest.raises(_Parsed),
  ):
    runpy.run_path(str(path), run_name='__main__')


def _parse_absl(path, arguments):
  def parse_and_stop(main, flags_parser):
    del main
    flags_parser([str(path), *arguments])
    raise _Parsed

  known, modules = set(flags.FLAGS), set(sys.modules)
  try:
    with mock.patch.object(app, 'run', parse_and_stop), pytest.raises(_Parsed):
      runpy.run_path(str(path), run_name='__main__')
  finally:
    for name in set(flags.FLAGS) - known:
      delattr(flags.FLAGS, name)
    for name in set(sys.modules) - modules:
      # Flags keep what was parsed: the next line is to begin with the defaults.
      if name.startswith('covid_tf.training.'):
        del sys.modules[name]


# A folder in which the blocks of a page are run, with what they name.


@pytest.fixture(scope='module', name='given')
def _given(tmp_path_factory):
  """Files that pages take for granted, written once."""
  folder = tmp_path_factory.mktemp('given')
  tiny_models.export_both(folder / 'exported')
  volume = synthetic_case.make_volume(
    synthetic_case.axial_affine((12.0, 5.0, 5.0), _SHAPE), _SHAPE
  )
  dicom_series.write(folder / 'study', volume)
  np.save(folder / 'study.npy', volume.hu)
  read = covid_tf.read_ct(folder / 'study')
  written = str(folder / 'result')
  models = str(folder / 'exported')
  study = str(folder / 'study')
  assert cli.main(['score', study, '--output', written, '--models', models]) == 0
  mask, _ = maps.read(folder / 'result' / 'lung_mask.nii.gz')
  ras = np.diag((-1.0, -1.0, 1.0, 1.0)) @ read.affine[:, [2, 1, 0, 3]]
  mask = mask.astype(np.uint8)
  lobes = mask * 10
  lobes[: len(mask) // 2] += mask[: len(mask) // 2]  # 11 in the lower half.
  for name, voxels in (('edited', mask), ('lobes', lobes)):
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), ras), folder / f'{name}.nii.gz')
  (folder / 'names.json').write_text(json.dumps({'10': 'lung_upper_lobe_left'}))
  random = np.random.default_rng(0)
  cohort_files.write_cohort(
    folder, random.gamma(2, 60, 9), random.gamma(0.5, 10, 7), ['severe', 'mild'] * 4
  )
  assert label_maps.read_label_map(folder / 'lobes.nii.gz', read).max() == 11
  return folder


@pytest.fixture(name='sandbox')
def _sandbox(given, tmp_path, monkeypatch):
  """A copy of these files as the working folder; the demo models are tiny ones."""
  shutil.copytree(given, tmp_path / 'here')
  monkeypatch.chdir(tmp_path / 'here')
  monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
  monkeypatch.setattr(in_process, 'demo_models', lambda: given / 'exported')
  return tmp_path / 'here'


@pytest.fixture(scope='module', name='address')
def _address(given):
  options = configuration.ServerOptions(models=str(given / 'exported'), port=0)
  server = serving.Server(options)
  yield server.addresses[0]
  server.stop()


@pytest.fixture(scope='module', name='models')
def _models(given):
  with covid_tf.load_models(given / 'exported') as models:
    yield models


@pytest.mark.parametrize('page', sorted({block.page for block in _RUN}))
@pytest.mark.usefixtures('sandbox')
def test_blocks_run_in_order(page, address, models):
  blocks = [block for block in _RUN if block.page == page]
  if page != 'docs/cohort.md':  # It wants scores that differ.
    _write_whole_results()
  names = {}
  if any(block.language == 'python' for block in blocks):
    names = _names(page, models)
  with contextlib.ExitStack() as servers:
    for block in blocks:
      if block.language == 'python':
        code = _ADDRESSES.sub(address, block.code)
        exec(compile(code, str(block), 'exec'), names)
      else:
        for line in block.lines():
          _run(_ADDRESSES.sub(address, line), servers)
  if 'channel' in names:
    names['channel'].close()


def _write_whole_results():
  """Results with reports and maps, which are looked through; of one study."""
  labels = pathlib.Path('labels.csv').read_text('utf-8').splitlines()[1:]
  shutil.rmtree('results')
  for uid in (row.split(',')[0] for row in labels):
    folder = pathlib.Path('results', uid)
    shutil.copytree('result', folder)
    stored = json.loads((folder / 'result.json').read_text('utf-8'))
    stored |= {'study_uid': uid, 'series_uid': f'{uid}.1'}
    (folder / 'result.json').write_text(json.dumps(stored), 'utf-8')


def _names(page, models):
  """What the words around a page's Python have introduced."""
  volume = covid_tf.read_ct('study/')
  names = {
    'covid_tf': covid_tf,
    'volume': volume,
    'models': models,
    'result': covid_tf.analyze(volume, models, progress=False),
  }
  names['mask'] = np.asarray(names['result'].lung_mask)
  if page == 'docs/grad_cam.md':
    names['model'] = keras.applications.ResNet50(weights=None, classes=1)
    names['images'] = np.zeros((1, 224, 224, 3), np.float32)
  return names


def _run(line, servers):
  words = line.split()
  if words[1] == 'serve':
    servers.enter_context(_served(words[2:]))
    return
  assert cli.main(shlex.split(line)[1:]) == 0, line


@contextlib.contextmanager
def _served(arguments):
  """`covid-tf serve` as typed, on a free port, until Ctrl-C."""
  port = free_ports.free_port()
  command = [sys.executable, '-m', 'covid_tf.cli', 'serve', *arguments]
  command += ['--port', str(port)]
  process = subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  try:
    assert any('ready on' in line for line in process.stdout), process.stderr.read()
    yield
  finally:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode in (0, 130), process.returncode
