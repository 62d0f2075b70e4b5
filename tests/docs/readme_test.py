"""README's commands: each parses, and each of its files is made by an earlier line."""

import argparse
import importlib
import pathlib
import re
import shlex

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_OURS = {'study/', 'my_data'}  # Which README says are the reader's.


def _lines() -> list[str]:
  """Shell lines of README, comments off, continued lines joined."""
  text = (_ROOT / 'README.md').read_text('utf-8')
  blocks = '\n'.join(re.findall(r'```bash\n(.*?)```', text, re.DOTALL))
  lines = blocks.replace('\\\n', ' ').splitlines()
  return [
    line for line in (re.sub(r'(^|\s)#.*', '', line).strip() for line in lines) if line
  ]


def test_something_is_read():
  assert any(line.startswith('covid-tf score') for line in _lines())
  assert any(line.startswith('python tools/') for line in _lines())


@pytest.mark.parametrize(
  'line', [line for line in _lines() if line.startswith('covid-tf')]
)
def test_commands_parse(line):
  _, name, *rest = shlex.split(line)
  command = importlib.import_module(f'covid_tf.commands.{name}')
  parser = argparse.ArgumentParser(exit_on_error=False)
  command.add_arguments(parser)
  parser.parse_args(rest)


@pytest.mark.parametrize(
  'line', [line for line in _lines() if re.match(r'(python|bash) tools/', line)]
)
def test_scripts_have_these_flags(line):
  _, script, *rest = shlex.split(line)
  source = (_ROOT / script).read_text('utf-8')
  if 'import training_flags' in source:
    source += (_ROOT / 'tools/training_flags.py').read_text('utf-8')
  for flag in rest:
    name = re.match(r'--(\w+)', flag).group(1)
    assert re.search(rf"DEFINE_\w+\(\s*'{name}'", source), flag


def test_what_is_read_was_made_before():
  made = set(_OURS)
  for line in _lines():
    words = [word.partition('=') for word in shlex.split(line)]
    values = {name: value for name, equals, value in words if equals}
    plain = shlex.split(line)
    for flag in ('--models', '--output'):
      if flag in plain:
        values[flag] = plain[plain.index(flag) + 1]
    output = values.pop('--output', None)
    if line.startswith(('covid-tf score', 'covid-tf inspect')):
      assert plain[2] in made
    for flag in ('--models', '--folder', '--shards', '--validation', '--classifier'):
      if (value := values.get(flag)) and value != 'demo':
        assert any(value.rstrip('/').startswith(path.rstrip('/')) for path in made), (
          f'{line}: nothing makes {value}'
        )
    if output:
      made.add(output)
