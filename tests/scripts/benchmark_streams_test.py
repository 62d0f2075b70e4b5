"""Benchmarks print as the commands do: a closed pipe gives no traceback."""

import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_BENCHMARKS = sorted(
  path
  for path in (_ROOT / 'tools' / 'benchmarks').glob('*.py')
  if 'ArgumentParser(' in (text := path.read_text()) and "'__main__'" in text
)


@pytest.mark.parametrize('path', _BENCHMARKS, ids=lambda path: path.stem)
def test_prints_within_safe_streams(path):
  started = path.read_text().partition("if __name__ == '__main__':\n")[2]
  assert started.startswith('  with streams.safe_streams():\n')
