"""Every path, module, name and test that the documentation names exists."""

import ast
import functools
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PACKAGE = _ROOT / 'covid_tf'
_PAGES = sorted(
  path.relative_to(_ROOT).as_posix()
  for path in (
    *_ROOT.glob('*.md'),
    *_ROOT.glob('docs/**/*.md'),
    *_ROOT.glob('serving/*.md'),
  )
)
_PATH = re.compile(r'\b(?:covid_tf|docs|tests|tools|serving)/[\w./-]*\w')
_DOTTED = re.compile(r'`((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*)[`(]')
_FILES = re.compile(
  r'\.(py|md|json|csv|h5|npz|svg|png|html|sh|txt|yaml|jsonl|gz|config|binpb|cfg|template|'
  r'toml|sock|cff|ipynb|weights|dcm|lua)\b'
)
_OTHERS = {  # First parts of dotted names that are not ours.
  'concurrent',
  'figures',
  'int_val',
  'keras',
  'np',
  'numpy',
  'pydicom',
  'scipy',
  'scorer',
  'Session',
  'strategy',
  'tf',
}
_OBJECTS = {'models', 'network', 'report', 'result'}  # Of the examples beside.


def test_nothing_is_installed_by_a_name_that_no_index_has():
  extra = re.compile(r'\bcovid[-_]tf' + r'\[')
  sources = [*_PACKAGE.rglob('*.py'), *(_ROOT / page for page in _PAGES)]
  assert not [
    path.relative_to(_ROOT).as_posix()
    for path in sources
    if extra.search(path.read_text('utf-8'))
  ]


def _text(page: str) -> str:
  return (_ROOT / page).read_text('utf-8')


@functools.cache
def _names(path: pathlib.Path) -> frozenset[str]:
  """Names that a module, or a class in it as `Class.name`, defines or imports."""
  found = set()
  for node in ast.parse(path.read_text('utf-8')).body:
    if isinstance(node, ast.ImportFrom | ast.Import):
      found |= {alias.asname or alias.name for alias in node.names}
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
      found.add(node.name)
      found |= {f'{node.name}.{name}' for name in _assigned(node)}
    found |= _assigned(ast.Module([node], []))
  return frozenset(found)


def _assigned(body: ast.AST) -> set[str]:
  found = set()
  for node in body.body:
    if isinstance(node, ast.FunctionDef):
      found.add(node.name)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      found |= {target.id for target in targets if isinstance(target, ast.Name)}
  return found


def _modules(dotted: str) -> list[pathlib.Path]:
  """Modules of the package whose dotted path ends with this one."""
  last = '/'.join(dotted.split('.'))
  return [
    path
    for path in _all_modules()
    if f'/{path.relative_to(_ROOT).as_posix()}'.removesuffix('/__init__.py')
    .removesuffix('.py')
    .endswith(f'/{last}')
  ]


@functools.cache
def _all_modules() -> tuple[pathlib.Path, ...]:
  return tuple(sorted(_PACKAGE.rglob('*.py')))


def _is_defined(dotted: str) -> bool:
  """Whether a module, or `module.name`, `Class.name` in one, is of the package."""
  if _modules(dotted):
    return True
  parts = dotted.split('.')
  if parts == ['covid_tf', *parts[1:2]]:
    text = (_PACKAGE / '__init__.py').read_text('utf-8')
    return f"'{parts[1]}'" in text or parts[1] in _names(_PACKAGE / '__init__.py')
  return any(
    '.'.join(parts[count:]) in _names(module)
    for count in range(len(parts))
    for module in (_modules('.'.join(parts[:count])) if count else _all_modules())
  )


def test_something_is_read():
  assert {'README.md', 'docs/reader.md', 'serving/README.md'} <= set(_PAGES)
  assert any('adr' in page for page in _PAGES)
  assert _is_defined('covid_tf.read_ct') and _is_defined('discovery.Links')
  assert not _is_defined('covid_tf.readers.nowhere')
  assert not _is_defined('discovery.nothing')


@pytest.mark.parametrize('page', _PAGES)
def test_paths_exist(page):
  for path in _PATH.findall(_text(page)):
    assert (_ROOT / path).exists(), f'{page}: {path}'


@pytest.mark.parametrize(
  'page', [page for page in _PAGES if page != 'CHANGELOG.md']
)  # Has old names too.
def test_modules_and_names_are_defined(page):
  for name in _DOTTED.findall(_text(page)):
    if name.split('.')[0] not in _OTHERS | _OBJECTS and not _FILES.search(name):
      assert _is_defined(name), f'{page}: {name}'


@pytest.mark.parametrize('page', _PAGES)
def test_short_paths_of_modules_exist(page):
  for name in re.findall(r'`((?:[a-z_]+/)*[a-z_]+)\.py`', _text(page)):
    if not (_ROOT / f'{name}.py').exists():
      assert _modules(name.replace('/', '.')), f'{page}: {name}.py'


@pytest.mark.parametrize('page', _PAGES)
def test_python_examples_use_names_that_are_defined(page):
  for block in re.findall(r'```python\n(.*?)```', _text(page), re.DOTALL):
    tree = ast.parse(block)
    places = {}
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.module.startswith('covid_tf'):
        for alias in node.names:
          places[alias.asname or alias.name] = f'{node.module}.{alias.name}'
      elif isinstance(node, ast.Import):
        places |= {
          alias.name: alias.name for alias in node.names if alias.name == 'covid_tf'
        }
    for name in places.values():
      assert name == 'covid_tf' or _is_defined(name), f'{page}: {name}'
    for node in ast.walk(tree):
      if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in places
      ):
        name = f'{places[node.value.id]}.{node.attr}'
        assert _is_defined(name), f'{page}: {name}'


@pytest.mark.parametrize('page', _PAGES)
def test_links_lead_to_pages_and_headings(page):
  for target in re.findall(r'\]\(\s*([^)\s]+)\s*\)', _text(page)):
    path, _, heading = target.partition('#')
    if re.match(r'[a-z]+:', target):
      continue
    linked = (_ROOT / page).parent / path if path else _ROOT / page
    assert linked.exists(), f'{page}: {target}'
    if heading:
      headings = re.findall(r'^#+ (.*)$', linked.read_text('utf-8'), re.MULTILINE)
      assert heading in {
        re.sub(r'[^\w -]', '', text.lower()).replace(' ', '-') for text in headings
      }, f'{page}: {target}'


def _proofs() -> list[tuple[str, str]]:
  """(test file, part of a test's name or '') of the column "Proven by"."""
  found = []
  rows = _text('docs/reader.md').split('| What |')[1:]
  for row in '\n'.join(rows).splitlines():
    *_, cell = re.split(r'(?<!\\)\|', row.strip().strip('|'))
    if '|' not in row or '---' in cell or 'Proven by' in cell:
      continue
    if row.startswith('| condition') or '`thickness' in row:
      break
    for part in cell.split(';'):
      name, *patterns = re.findall(r'[^\s,`…]+', part)
      found += [(name, pattern) for pattern in patterns or ['']]
  return found


def test_tests_that_prove_what_is_read_exist():
  proofs = _proofs()
  assert len(proofs) > 80
  for name, pattern in proofs:
    path = (
      _ROOT
      / 'tests'
      / (f'{name}_test.py' if '/' in name else f'readers/{name}_test.py')
    )
    assert path.exists(), name
    tests = re.findall(r'def test_(\w+)', path.read_text('utf-8'))
    assert any(pattern in test for test in tests), f'{name}: {pattern}'
