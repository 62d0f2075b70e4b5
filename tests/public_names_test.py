"""The public names: what editors are shown is what the package gives."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest
import user_script

import covid_tf

_PACKAGE = pathlib.Path(covid_tf.__file__).parent


def test_the_stub_names_what_is_imported_lazily():
  stub = ast.parse((_PACKAGE / '__init__.pyi').read_text('utf-8'))
  found = {
    alias.name: node.module
    for node in stub.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
    if alias.name == alias.asname
  }
  assert found.pop('__version__') == 'covid_tf.version'
  assert found == covid_tf._HOMES
  assert set(covid_tf.__all__) == {'__version__', *found}
  assert (_PACKAGE / 'py.typed').exists()


@pytest.mark.parametrize('name', sorted(set(covid_tf.__all__) - {'__version__'}))
def test_every_public_name_has_words_and_an_example(name):
  text = inspect.getdoc(getattr(covid_tf, name))
  examples = [
    block
    for block in text.split('\n\n')
    if re.search(r'covid_tf\.[\w.]+\(|result\.\w+\(', block)
  ]
  assert any(map(_parses, examples)), text
  shown = getattr(covid_tf, name)
  if inspect.isfunction(shown):
    assert 'Args:' in text and 'Returns:' in text and 'Raises:' in text
    for argument in inspect.signature(shown).parameters:
      assert re.search(rf'^ +(\w+, )*{argument}[,:]', text, re.MULTILINE), argument


def _parses(block):
  try:
    return bool(ast.parse(textwrap.dedent(block)).body)
  except SyntaxError:
    return False


@pytest.mark.parametrize(
  'name', ('from_array', 'from_sitk', 'from_nibabel', 'to_sitk', 'to_nibabel')
)
def test_every_way_of_a_volume_has_an_example(name):
  assert f'.{name}(' in inspect.getdoc(getattr(covid_tf.CTVolume, name))


@pytest.mark.parametrize('name', ('save', 'plot', 'to_dict'))
def test_every_way_of_a_result_has_an_example(name):
  assert f'result.{name}(' in inspect.getdoc(getattr(covid_tf.CaseResult, name))


def test_a_script_of_all_of_it_passes_the_strictest_types(tmp_path):
  script = pathlib.Path(user_script.__file__)
  used = set(re.findall(r'covid_tf\.(\w+)', script.read_text('utf-8')))
  assert used >= set(covid_tf.__all__)
  (tmp_path / 'mypy.ini').write_text('[mypy]\n')
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'mypy', '--strict', '--follow-imports=silent'),
      *('--config-file', tmp_path / 'mypy.ini', '--cache-dir', tmp_path / 'cache'),
      script,
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=_PACKAGE.parent,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_there():
  for name in covid_tf.__all__:
    assert getattr(covid_tf, name) is not None
