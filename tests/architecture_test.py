"""Who may enter which room, as the table of CONTRIBUTING.md says, by the code."""

import ast
import collections
import dataclasses
import functools
import graphlib
import pathlib
import re

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / 'covid_tf'
_TENSORFLOW = {'tensorflow', 'keras', 'tf_keras', 'segmentation_models', 'h5py'}
_PARSERS = {'argparse', 'absl', 'optparse', 'getopt'}
_INTERFACE = 'predictors.base'
_CONFIGURING = frozenset((
    'logging.basicConfig', 'logging.config.dictConfig', 'logging.config.fileConfig',
    'logging.captureWarnings', 'logging.disable', 'warnings.simplefilter',
    'warnings.filterwarnings'))
# Makes the public names and the version reachable from the package itself.
_ROOT_MODULE = 'covid_tf'


@dataclasses.dataclass(frozen=True)
class _Room:
  """A row of the table."""

  name: str
  modules: frozenset[str]
  imports: frozenset[str]
  tensorflow: str


@dataclasses.dataclass(frozen=True)
class _Import:
  """One import of a module; `is_lazy` inside a function."""

  source: str
  target: str
  is_lazy: bool


@functools.cache
def _rooms() -> dict[str, _Room]:
  rows = re.findall(
      r'^\| (\w+) \| ((?:`\w+` ?)+)\|[^|]*\|([^|]*)\| ([\w ]+) \|$',
      (_ROOT / 'CONTRIBUTING.md').read_text('utf-8'), re.MULTILINE)
  everything = frozenset(name for name, *_ in rows)
  return {
      name: _Room(
          name, frozenset(re.findall(r'\w+', modules)),
          everything - {name} if imports.strip() == 'every room'
          else frozenset(re.findall(r'[\w.]+', imports)), tensorflow)
      for name, modules, imports, tensorflow in rows}


def _room_of(module: str) -> str | None:
  """The room of 'covid_tf.readers.nifti', for instance; None of the package itself."""
  if module == _ROOT_MODULE:
    return None
  part = module.split('.')[1]
  return next(room.name for room in _rooms().values() if part in room.modules)


@functools.cache
def _trees() -> dict[str, ast.Module]:
  """Dotted name of every module of the package to what it says."""
  trees = {}
  for path in sorted(_PACKAGE.rglob('*.py')):
    parts = path.relative_to(_ROOT).with_suffix('').parts
    name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
    trees[name] = ast.parse(path.read_text('utf-8'))
  return trees


@functools.cache
def _imports() -> tuple[_Import, ...]:
  return tuple(
      _Import(module, target, is_lazy)
      for module, tree in _trees().items()
      for target, is_lazy in _found(tree, False))


def _found(node: ast.AST, is_lazy: bool):
  """(dotted target, is lazy) of every import below a node."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import):
      yield from ((alias.name, is_lazy) for alias in child.names)
    elif isinstance(child, ast.ImportFrom):
      assert not child.level, f'a relative import in line {child.lineno}'
      yield from ((_target(child.module, alias.name), is_lazy)
                  for alias in child.names)
    else:
      yield from _found(child, is_lazy or isinstance(
          child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def _target(module: str, name: str) -> str:
  whole = f'{module}.{name}'
  is_ours = module.split('.')[0] == _ROOT_MODULE
  return whole if is_ours and whole in _trees() else module


def _dotted(node: ast.AST) -> str:
  """'logging.config.dictConfig' of such an expression; '' of any other."""
  if isinstance(node, ast.Attribute):
    return f'{_dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def _calls(tree: ast.AST, names: frozenset[str]) -> list[ast.Call]:
  """Calls of a function of one of these dotted names."""
  return [node for node in ast.walk(tree)
          if isinstance(node, ast.Call) and _dotted(node.func) in names]


def test_every_module_has_one_room():
  parts = {module.split('.')[1] for module in _trees() if module != _ROOT_MODULE}
  places = collections.Counter(
      part for room in _rooms().values() for part in room.modules)
  assert set(places) == parts
  assert set(places.values()) == {1}


def test_the_table_has_no_way_back():
  graph = {
      room.name: {name.split('.')[0] for name in room.imports}
      for room in _rooms().values()}
  assert set().union(*graph.values()) <= set(graph)
  tuple(graphlib.TopologicalSorter(graph).static_order())  # CycleError otherwise.


def test_rooms_import_what_the_table_allows():
  wrong = []
  for found in _imports():
    source = _room_of(found.source)
    if source is None or not found.target.startswith('covid_tf.'):
      continue
    room, target = _rooms()[source], _room_of(found.target)
    allowed = room.imports | {source}
    if target in allowed or (
        found.target == f'covid_tf.{_INTERFACE}' and _INTERFACE in allowed):
      continue
    is_door = found.is_lazy and room.tensorflow == 'inside functions'
    if not (is_door and _rooms()[target].tensorflow == 'yes'):
      wrong.append(f'{found.source} -> {found.target}')
  assert not wrong


def test_tensorflow_stays_behind_its_doors():
  wrong = []
  for found in _imports():
    if found.target.split('.')[0] not in _TENSORFLOW:
      continue
    source = _room_of(found.source)
    entry = _rooms()[source].tensorflow if source else 'no'
    if entry == 'no' or (entry == 'inside functions' and not found.is_lazy):
      wrong.append(f'{found.source} -> {found.target}')
  assert not wrong
  # Else nothing was looked at.
  assert any(found.target.startswith('tensorflow') for found in _imports())


def test_no_room_outside_commands_reads_flags():
  readers = {
      found.source for found in _imports()
      if found.target.split('.')[0] in _PARSERS}
  assert 'covid_tf.cli' in readers
  assert {module for module in readers if _room_of(module) != 'commands'} == set()
  argv = [module for module, tree in _trees().items()
          if any(_dotted(node) == 'sys.argv' for node in ast.walk(tree))]
  assert {module for module in argv if _room_of(module) != 'commands'} == set()


def test_libraries_print_only_where_they_were_told():
  wrong = []
  for module, tree in _trees().items():
    if _room_of(module) == 'commands':
      continue
    for call in _calls(tree, frozenset({'print'})):
      streams = [_dotted(keyword.value) for keyword in call.keywords
                 if keyword.arg == 'file']
      if not streams or streams[0] in ('sys.stdout', 'sys.stderr'):
        wrong.append(f'{module}:{call.lineno}')
  assert not wrong


def test_nobody_configures_logging_for_the_user():
  # Inside a `with warnings.catch_warnings()` a filter ends with the block.
  assert {module: lines for module, tree in _trees().items()
          if (lines := _outside_catching(tree))} == {}


def _outside_catching(tree: ast.Module) -> set[int]:
  inside = {
      call.lineno for node in ast.walk(tree) if isinstance(node, ast.With)
      and any('catch_warnings' in ast.unparse(item) for item in node.items)
      for call in _calls(node, _CONFIGURING)}
  return {call.lineno for call in _calls(tree, _CONFIGURING)} - inside


def test_importing_a_module_sets_no_logger():
  wrong = []
  for module, tree in _trees().items():
    for statement in tree.body:
      if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        continue
      wrong += [
          f'{module}:{node.lineno}' for node in ast.walk(statement)
          if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
          and node.func.attr in ('setLevel', 'addHandler', 'addFilter')]
  assert not wrong
