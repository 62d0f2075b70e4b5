"""No test is forgotten: each file has its target, each target its file."""

import pathlib
import re

_TESTS = pathlib.Path(__file__).parent


def test_every_test_file_has_a_target_and_the_other_way_round():
  build = (_TESTS / 'BUILD').read_text()
  targets = re.findall(r'^covid_py_test\(\n    name = "(\w+)"', build, re.MULTILINE)
  assert targets == sorted(targets)
  assert targets == sorted(path.stem for path in _TESTS.glob('*_test.py'))
