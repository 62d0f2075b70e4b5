"""What imports may do, beyond who may import whom (.importlinter): by the code.

And where the tests of each module are.
"""

import ast
import functools
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / 'covid_tf'
_TENSORFLOW = {'tensorflow', 'keras', 'tf_keras', 'segmentation_models', 'h5py'}
# These import TensorFlow as they are imported, but for two modules of plain words
# (tests/import_without_tensorflow_test.py); those reach them inside functions only.
_NEEDING_TENSORFLOW = {'models', 'sessions', 'server', 'training'}
_WITHOUT = {'covid_tf.server.configuration', 'covid_tf.sessions.refusal'}
_REACHING_TENSORFLOW = {'predictors', 'demo', 'commands'}
_COMMANDS = {'cli', 'commands'}
# Run by `python -m`, with flags of their own.
_SCRIPTS = {
  f'covid_tf.training.{name}'
  for name in (
    'evaluate',
    'export_models',
    'import_dataset',
    'script',
    'train_classifier',
    'train_lungs',
    'training_flags',
  )
}
_PARSERS = {'argparse', 'absl', 'optparse', 'getopt'}
_CONFIGURING = frozenset(
  (
    'logging.basicConfig',
    'logging.config.dictConfig',
    'logging.config.fileConfig',
    'logging.captureWarnings',
    'logging.disable',
    'warnings.simplefilter',
    'warnings.filterwarnings',
  )
)
# Modules without a test of their name, by the test that covers them: it imports them,
# or what imports them, or runs their command (`_reached`).
_TESTED_ELSEWHERE = {
  'batch/archive_run_test': 'batch.records batch.run_configuration batch.scoring',
  'batch/archive_test': 'batch.listing',
  'cohort/follow_up/alignment_test': 'cohort.follow_up.lung_surface',
  'cli_test': '__main__ errors streams version',
  'cohort/follow_up/course_test': 'cohort.follow_up.report cohort.follow_up.trend',
  'cohort/follow_up/ct_pictures_test': 'cohort.follow_up.zones',
  'commands/batch_test': 'commands.archive_scorer',
  'clinic/fetching_test': 'commands.echo commands.fetch',
  'clinic/sending_test': 'commands.clinic_flags commands.send',
  'cohort/review/contact_sheet_test': 'commands.review',
  'cohort/manifestations/slices_test': 'cohort.manifestations.kinds',
  'commands/cohort_test': (
    'cohort.accuracy.analysis cohort.accuracy.experiments cohort.accuracy.report'
  ),
  'commands/dicom_test': 'reports.dicom_export',
  'commands/manifestations_test': (
    'cohort.manifestations.report commands.model_flags commands.shared_flags'
  ),
  'commands/score_test': 'reports.scored_study',
  'commands/serve_test': 'server.configuration',
  'datasets/collections/collections_test': (
    'datasets.collections.covid_ct_md datasets.collections.covidx_ct '
    'datasets.collections.ct_seg datasets.collections.implanted '
    'datasets.collections.mask_files datasets.collections.mosmed '
    'datasets.collections.phantoms datasets.collections.study'
  ),
  'datasets/phantom/generation_test': (
    'datasets.phantom.anatomy datasets.phantom.case datasets.phantom.lesions '
    'datasets.phantom.mediastinum datasets.phantom.shapes'
  ),
  'demo/running_test': 'commands.demo demo.drawing',
  'models/export_test': 'models.export_check sessions.servable server.predict',
  'models/signatures_test': 'models.networks sessions.refusal',
  'predictors/protocol_test': 'predictors.tensors',
  'predictors/self_check_test': 'commands.check predictors.reference_slices',
  'readers/compressed_test': 'readers.decoding',
  'readers/dataset_test': 'readers.header_walk readers.sources',
  'readers/arrays_test': 'readers.voxel_grids',
  'reports/notebook_test': 'analysis.key_planes',
  'readers/geometry_test': 'readers.images volume',
  'readers/pixels_test': 'readers.lossless_jpeg',
  'readers/slice_headers_test': 'readers.wanted',
  'reports/case_report_test': 'reports.pages',
  'reports/case_figures_test': 'reports.figure_panels',
  'reports/case_viewer_test': 'reports.viewed_volume',
  'server/conformance_test': 'contract server.services',
  'storage/dicom/segmentation_test': 'storage.dicom.frames',
  'storage/result_json_test': 'lung_measures results storage.measures_json',
  'training/augmentation_test': 'training.pipelines training.tasks',
  'training/evaluation/evaluating_test': (
    'training.evaluation.by_acquisition training.evaluation.metrics '
    'training.evaluation.report'
  ),
  'training/evaluation/judging_test': 'training.evaluation.judging_report',
  'training/importing_test': 'training.shards',
  'training/trainer_test': 'training.loop',
  'scripts/script_test': (
    'training.evaluate training.export_models training.import_dataset '
    'training.script training.train_classifier training.train_lungs '
    'training.training_flags'
  ),
}


@functools.cache
def _trees() -> dict[str, ast.Module]:
  """Dotted name of every module of the package to what it says."""
  trees = {}
  for path in sorted(_PACKAGE.rglob('*.py')):
    parts = path.relative_to(_ROOT).with_suffix('').parts
    name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
    trees[name] = ast.parse(path.read_text('utf-8'))
  return trees


def _part(module: str) -> str:
  """'readers' of 'covid_tf.readers.nifti'; '' of the package itself."""
  return module.partition('.')[2].partition('.')[0]


def _imports(node: ast.AST, is_lazy: bool = False):
  """(dotted target, is inside a function) of every import below a node."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import):
      yield from ((alias.name, is_lazy) for alias in child.names)
    elif isinstance(child, ast.ImportFrom):
      assert not child.level, f'a relative import in line {child.lineno}'
      yield from ((f'{child.module}.{alias.name}', is_lazy) for alias in child.names)
    else:
      yield from _imports(
        child,
        is_lazy
        or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)),
      )


def _needs_tensorflow(target: str) -> bool:
  return target.split('.')[0] in _TENSORFLOW or (
    target.startswith('covid_tf.')
    and _part(target) in _NEEDING_TENSORFLOW
    and target not in _WITHOUT
  )


def _dotted(node: ast.AST) -> str:
  """'logging.config.dictConfig' of such an expression; '' of any other."""
  if isinstance(node, ast.Attribute):
    return f'{_dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def _calls(tree: ast.AST, names: frozenset[str]) -> list[ast.Call]:
  """Calls of a function of one of these dotted names."""
  return [
    node
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and _dotted(node.func) in names
  ]


def test_tensorflow_is_imported_where_it_is_needed():
  wrong, seen = [], 0
  for module, tree in _trees().items():
    if _part(module) in _NEEDING_TENSORFLOW:
      continue
    for target, is_lazy in _imports(tree):
      if _needs_tensorflow(target):
        seen += 1
        if not (is_lazy and _part(module) in _REACHING_TENSORFLOW):
          wrong.append(f'{module} -> {target}')
  assert not wrong
  assert seen  # Else nothing was looked at.


def test_file_names_are_unique():
  # Each of these is what its package calls it; a second name would hide that.
  shared = ('report.py', 'figures.py', 'results.py', 'labels.py', 'metrics.py')
  names = [
    path.name
    for path in _PACKAGE.rglob('*.py')
    if path.name not in ('__init__.py', *shared)
  ]
  assert len(names) == len(set(names)) > 100
  tests = [path.name for path in (_ROOT / 'tests').rglob('*_test.py')]
  assert len(tests) == len(set(tests)) > 100  # pytest imports them by their names.


def test_every_module_has_a_test_of_its_name_or_is_named_in_the_table():
  tests = _ROOT / 'tests'
  modules = {
    path.relative_to(_PACKAGE).with_suffix('')
    for path in _PACKAGE.rglob('*.py')
    if path.name != '__init__.py'
  }
  without = {
    '.'.join(module.parts)
    for module in modules
    if not (tests / f'{module}_test.py').exists()
  }
  listed = ' '.join(_TESTED_ELSEWHERE.values()).split()
  assert len(set(listed)) == len(listed)
  assert without - set(listed) == set(), 'write a test of their name, or add them'
  assert set(listed) - without == set(), 'gone, or with a test of their name: remove'


@pytest.mark.parametrize('test', _TESTED_ELSEWHERE)
def test_the_test_that_the_table_names_reaches_the_module(test):
  reached = _reached(_ROOT / 'tests' / f'{test}.py')
  for module in _TESTED_ELSEWHERE[test].split():
    assert f'covid_tf.{module}' in reached


def _reached(test: pathlib.Path) -> set[str]:
  """Modules that a test imports or whose command it names, and what those import."""
  imported, seen = set(), set()
  remaining = [test]
  while remaining:  # The test, and its helpers in tests/support.
    path = remaining.pop()
    seen.add(path)
    tree = ast.parse(path.read_text('utf-8'))
    imported |= _own_modules(tree)
    imported |= {
      f'covid_tf.{package}.{node.value}'
      for package in ('commands', 'training')
      for node in ast.walk(tree)
      if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } & set(_trees())
    helpers = {
      _ROOT / 'tests' / 'support' / f'{target.split(".")[0]}.py'
      for target, _ in _imports(tree)
    }
    remaining += [helper for helper in helpers - seen if helper.exists()]
  return imported.union(*(_own_modules(_trees()[module]) for module in imported))


def _own_modules(tree: ast.Module) -> set[str]:
  """Modules and packages of covid_tf that are imported, or something of them."""
  targets = {target for target, _ in _imports(tree)}
  return (targets | {target.rpartition('.')[0] for target in targets}) & set(_trees())


def test_only_commands_read_flags():
  readers = {
    module
    for module, tree in _trees().items()
    if any(target.split('.')[0] in _PARSERS for target, _ in _imports(tree))
  }
  assert 'covid_tf.cli' in readers
  assert {module for module in readers if not _is_command(module)} == set()
  argv = [
    module
    for module, tree in _trees().items()
    if any(_dotted(node) == 'sys.argv' for node in ast.walk(tree))
  ]
  assert {module for module in argv if not _is_command(module)} == set()


def _is_command(module: str) -> bool:
  return _part(module) in _COMMANDS or module in _SCRIPTS


def test_libraries_print_only_to_a_stream_that_is_given():
  wrong = []
  for module, tree in _trees().items():
    if _is_command(module):
      continue
    for call in _calls(tree, frozenset({'print'})):
      streams = [
        _dotted(keyword.value) for keyword in call.keywords if keyword.arg == 'file'
      ]
      if not streams or streams[0] in ('sys.stdout', 'sys.stderr'):
        wrong.append(f'{module}:{call.lineno}')
  assert not wrong


def test_nobody_configures_logging_for_the_user():
  # Inside a `with warnings.catch_warnings()` a filter ends with the block.
  assert {
    module: lines
    for module, tree in _trees().items()
    if (lines := _outside_catching(tree))
  } == {}


def _outside_catching(tree: ast.Module) -> set[int]:
  inside = {
    call.lineno
    for node in ast.walk(tree)
    if isinstance(node, ast.With)
    and any('catch_warnings' in ast.unparse(item) for item in node.items)
    for call in _calls(node, _CONFIGURING)
  }
  return {call.lineno for call in _calls(tree, _CONFIGURING)} - inside


def test_importing_a_module_sets_no_logger():
  wrong = []
  for module, tree in _trees().items():
    for statement in tree.body:
      if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        continue
      wrong += [
        f'{module}:{node.lineno}'
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ('setLevel', 'addHandler', 'addFilter')
      ]
  assert not wrong


def test_texts_are_utf8_whatever_the_locale_says():
  """On Windows and in cron's C locale the default is another."""
  found = []
  for name, tree in _trees().items():
    for node in ast.walk(tree):
      if isinstance(node, ast.Call) and _leaves_encoding_open(node):
        found.append(f'{name}, line {node.lineno}')
  assert not found


def _leaves_encoding_open(call: ast.Call) -> bool:
  if any(keyword.arg == 'encoding' for keyword in call.keywords):
    return False
  name = ast.unparse(call.func)
  constants = [getattr(argument, 'value', None) for argument in call.args]
  first, second, *_ = *constants, None, None
  if name.endswith('.read_text') and not name.startswith('tables.'):
    return first is None
  if name.endswith('.write_text'):
    return second is None
  if name == 'open':
    mode = next(
      (keyword.value.value for keyword in call.keywords if keyword.arg == 'mode'),
      second or 'r',
    )
    return 'b' not in mode
  if name.startswith('tempfile.') and name.endswith('TemporaryFile'):
    return first is not None and 'b' not in first
  return name.startswith('subprocess.') and any(
    keyword.arg == 'text' for keyword in call.keywords
  )
