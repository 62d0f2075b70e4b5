"""README's commands: each of their files is made by an earlier line.

That they parse and run is in tests/docs/snippets_test.py.
"""

import shlex

import snippets

_OURS = {'study/', 'my_data'}  # Which README says are the reader's.


def _lines() -> list[str]:
  """Shell lines of README, comments off, continued lines joined."""
  blocks = snippets.blocks('README.md')
  return [
    line for block in blocks if block.language == 'bash' for line in block.lines()
  ]


def test_something_is_read():
  assert any(line.startswith('covid-tf score') for line in _lines())
  assert any(line.startswith('python tools/') for line in _lines())


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
