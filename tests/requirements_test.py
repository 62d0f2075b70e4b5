"""What the code imports is what setup.cfg asks for, each in the package's own extra."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Decoders that pydicom finds by itself once they are installed.
_PLUGINS = {'pyjpegls', 'pylibjpeg', 'pylibjpeg-openjpeg'}
# Imported by tools alone: the flags of scripts that users run by the README.
# tools/test.sh installs it by hand, for it insists on `tensorflow`.
_BY_HAND = {'tensorflow-serving-api'}
# Part of covid_tf to the extras that it may need.
_PACKAGES = {
  'analysis': ('itk',),  # For its types alone.
  'batch': ('dask',),
  'clinic': ('clinic',),
  'node': ('clinic',),
  'models': ('models',),
  'readers': ('itk',),
  'server': ('models',),
  'sessions': ('models',),
  'storage': ('clinic', 'pandas'),
  'training': ('models', 'training'),
  'volume': ('itk',),
}


def _required(*extras: str) -> dict[str, str]:
  """Distribution to its bound, as tools/requirements.py prints the base and extras."""
  done = subprocess.run(
    [sys.executable, _ROOT / 'tools' / 'requirements.py', *extras],
    check=True,
    capture_output=True,
    text=True,
  )
  return {
    _canonical(name): bound
    for name, bound in re.findall(r'^([\w.-]+)(.*)$', done.stdout, re.MULTILINE)
  }


def _canonical(name: str) -> str:
  return re.sub(r'[-_.]+', '-', name).lower()


def _imported(folder: pathlib.Path, pattern: str = '**/*.py') -> set[str]:
  """First parts of what a folder's files import from elsewhere."""
  own = {path.stem for path in _ROOT.glob('t*/**/*.py')} | {'covid_tf'}
  names = set()
  for path in folder.glob(pattern):
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.Import):
        names |= {alias.name.split('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        names.add(node.module.split('.')[0])
  return names - own - set(sys.stdlib_module_names)


@functools.cache
def _distributions() -> dict[str, list[str]]:
  return importlib.metadata.packages_distributions()


def _missing(imported: set[str], required) -> set[str]:
  """Modules that none of the required distributions brings."""
  # Of both builds of TensorFlow either may be installed here.
  required = set(required) | (
    {'tensorflow', 'tensorflow-cpu'} if 'tensorflow' in required else set()
  )
  return {
    name
    for name in imported
    if not required & set(map(_canonical, _distributions().get(name, ())))
  }


@pytest.mark.parametrize(
  'package',
  sorted(
    path.stem
    for path in (_ROOT / 'covid_tf').iterdir()
    if path.suffix == '.py' or (path / '__init__.py').exists()
  ),
)
def test_a_package_imports_what_its_extras_bring(package):
  path = _ROOT / 'covid_tf' / package
  imported = (
    _imported(path) if path.is_dir() else _imported(path.parent, f'{package}.py')
  )
  assert not _missing(imported, _required(*_PACKAGES.get(package, ())))


def test_only_the_engine_of_dask_needs_dask():
  path = _ROOT / 'covid_tf' / 'batch'
  others = {
    name
    for file in path.glob('*.py')
    if file.stem != 'dask_engine'
    for name in _imported(path, file.name)
  }
  assert not _missing(others, _required())
  assert _missing(_imported(path), _required()) == {'distributed'}


def test_only_the_objects_of_dicom_need_the_extra_of_the_clinic():
  path = _ROOT / 'covid_tf' / 'storage'
  others = {
    name
    for file in path.rglob('*.py')
    if file.parent.name != 'dicom'
    for name in _imported(path, str(file.relative_to(path)))
  }
  assert not _missing(others, _required('pandas'))
  assert _missing(_imported(path), _required()) == {'highdicom', 'pandas'}


def test_nothing_is_required_in_vain():
  imported = {
    _canonical(distribution)
    for name in _imported(_ROOT / 'covid_tf')
    for distribution in _distributions().get(name, ())
  }
  assert set(_required()) - imported == _PLUGINS


def test_tests_need_no_more_than_test_sh_installs():
  script = (_ROOT / 'tools' / 'test.sh').read_text('utf-8')
  extras = re.search(r'requirements\.py ([\w -]+?) *\\?\n', script).group(1).split()
  assert all(name in script for name in _BY_HAND)
  required = set(_required(*extras)) | _BY_HAND
  if 'tensorflow-cpu' in required:
    required.add('tensorflow')
  assert not _missing(_imported(_ROOT / 'tests'), required)


def test_both_builds_of_tensorflow_come_with_the_same():
  full, cpu = _required('models'), _required('models-cpu')
  assert full.pop('tensorflow') == cpu.pop('tensorflow-cpu')
  assert full == cpu


def test_every_requirement_has_a_lower_bound_that_is_met_here():
  required = _required('models', 'training', 'dask', 'clinic', 'dev')
  for name, bound in required.items():
    assert re.fullmatch(r'>=[\d.]+', bound), name
    if name == 'tensorflow':  # Here may be tensorflow-cpu.
      continue
    installed = importlib.metadata.version(name)
    assert _numbers(installed) >= _numbers(bound), name


def _constraints() -> dict[str, str]:
  return dict(
    re.findall(
      r'^([\w.-]+)==(\S+)$',
      (_ROOT / 'constraints.txt').read_text('utf-8'),
      re.MULTILINE,
    )
  )


def test_every_requirement_is_pinned_at_a_version_that_meets_it():
  pinned = _constraints()
  required = _required('models', 'models-cpu', 'training', 'dask', 'clinic', 'dev')
  for name, bound in required.items():
    assert name in pinned, f'{name}: run tools/renew_constraints.sh'
    assert _numbers(pinned[name]) >= _numbers(bound), name
  assert set(pinned) >= _BY_HAND
  assert pinned['tensorflow'] == pinned['tensorflow-cpu']


def test_what_a_pinned_package_needs_is_pinned_too():
  pinned, found = set(_constraints()), 0
  for distribution in importlib.metadata.distributions():
    name = _canonical(distribution.metadata['Name'])
    if name not in pinned:
      continue
    found += 1
    for line in distribution.requires or ():
      needed, _, marker = line.partition(';')
      if not marker:  # Else for some systems, Pythons or extras alone.
        assert _canonical(re.match(r'[\w.-]+', needed)[0]) in pinned, (name, line)
  assert found > 50


def test_both_commands_and_the_renewal_speak_of_the_same():
  scripts = {
    path.name: path.read_text('utf-8') for path in (_ROOT / 'tools').glob('*.sh')
  }
  test, renewal = scripts['test.sh'], scripts['renew_constraints.sh']
  for pattern in (r'tools/requirements\.py (\w[a-z -]+\w)', r"--no-deps '(.*)'"):
    assert re.findall(pattern, test) == re.findall(pattern, renewal) != []
  environment = scripts['environment.sh']
  assert re.search(r'stamp=.*constraints\.txt', environment)
  assert 'PIP_CONSTRAINT=$constraints' in environment
  assert all('pip_install' in scripts[name] for name in ('test.sh', 'demo.sh'))


def _numbers(version: str) -> tuple[int, ...]:
  return tuple(map(int, re.findall(r'\d+', version)))[:3]
