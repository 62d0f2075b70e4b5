"""The public names: what editors are shown is what the package gives."""

import ast
import pathlib

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


def test_every_public_name_is_there():
  for name in covid_tf.__all__:
    assert getattr(covid_tf, name) is not None
