"""A file with what a site sets once: defaults of flags, in TOML.

  patient_key_file = "key"            # relative to this file

  [models]
  server = "gpu1:8500"                # or models = "exported"
  tls_ca = "ca.pem"

  [analysis]
  thickness_mm = 5
  slice_threshold = 0.5

  [dicom]
  to = "https://pacs.example/dicom-web"

  [node]
  callers = "CT1,CT2"

A flag that is given counts more than the file. With --server or --models the table
[models] is left out as a whole, with --to the table [dicom] and of [node] what begins
with pacs_, with --source-pacs what begins with source_: certificates and tokens of one
address are not sent to another.
"""

import argparse
from collections.abc import Iterable, Mapping
import dataclasses
import os
import pathlib
import tomllib
from typing import Any

from covid_tf import errors

VARIABLE = 'COVID_TF_CONFIG'
FILE_NAME = 'covid-tf.toml'

_NUMBER, _TEXT, _PATH, _SWITCH = 'a number', 'a text', 'a path as text', 'true or false'
_SCORING = ('score', 'batch', 'node')


@dataclasses.dataclass(frozen=True)
class _Table:
  """Keys that stand together.

  Attributes:
    kinds: key, which is the name of a flag with _ for -, to what its value is.
    commands: for whose flags it is read.
    alone: flags of which one, given on the command line, leaves the table out.
    belonging: such a flag to the beginning of the keys that it leaves out alone.
  """

  kinds: Mapping[str, str]
  commands: tuple[str, ...]
  alone: tuple[str, ...] = ()
  belonging: Mapping[str, str] = dataclasses.field(default_factory=dict)


_TABLES = {
  '': _Table({'patient_key_file': _PATH}, _SCORING),
  'models': _Table(
    {
      'server': _TEXT,
      'models': _PATH,
      'tls': _SWITCH,
      'tls_ca': _PATH,
      'tls_certificate': _PATH,
      'tls_key': _PATH,
      'token_file': _PATH,
      'timeout': _NUMBER,
    },
    (*_SCORING, 'check', 'manifestations'),
    ('server', 'models'),
  ),
  'analysis': _Table(
    {
      'thickness_mm': _NUMBER,
      'every_slice': _SWITCH,
      'smoothing_mm': _NUMBER,
      'slice_threshold': _NUMBER,
      'map_threshold': _NUMBER,
      'case_threshold': _TEXT,
    },
    (*_SCORING, 'manifestations'),
  ),
  'dicom': _Table(
    {
      'to': _TEXT,
      'aet': _TEXT,
      'own_port': _NUMBER,
      'tls': _SWITCH,
      'tls_ca': _PATH,
      'tls_certificate': _PATH,
      'tls_key': _PATH,
      'token_file': _PATH,
      'password_file': _PATH,
      'connect_timeout': _NUMBER,
      'answer_timeout': _NUMBER,
      'total_timeout': _NUMBER,
    },
    ('send',),
    ('to',),
  ),
  'node': _Table(
    {
      'output': _PATH,
      'spool': _PATH,
      **dict.fromkeys(
        ('aet', 'host', 'callers', 'source_pacs', 'to', 'health_host'), _TEXT
      ),
      'any_caller': _SWITCH,
      **{f'{whose}_tls': _SWITCH for whose in ('listen', 'pacs', 'source')},
      **{
        f'{whose}_tls_{what}': _PATH
        for whose in ('listen', 'pacs', 'source')
        for what in ('ca', 'certificate', 'key')
      },
      **{
        f'{whose}_{what}_file': _PATH
        for whose in ('pacs', 'source')
        for what in ('token', 'password')
      },
      **dict.fromkeys(
        (
          'port',
          'most_associations',
          'request_timeout',
          'idle_timeout',
          'longest_association',
          'largest_instance',
          'settle',
          'incomplete_after',
          'most_waiting',
          'connect_timeout',
          'answer_timeout',
          'total_timeout',
          'reserve',
          'keep_studies',
          'keep_refused',
          'keep_results',
          'health_port',
          'end_within',
          'processes',
        ),
        _NUMBER,
      ),
    },
    ('node',),
    belonging={'to': 'pacs_', 'source_pacs': 'source_'},
  ),
}
# Flags of which argparse takes one: the one on the command line leaves the other out.
_EXCLUDING = {'thickness_mm': 'every_slice', 'every_slice': 'thickness_mm'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds --config and --no-config."""
  group = parser.add_argument_group('defaults of a site').add_mutually_exclusive_group()
  group.add_argument(
    '--config',
    metavar='FILE',
    help=f'TOML with defaults of flags (default: {VARIABLE} of the environment, else '
    f"{FILE_NAME} of the user's configuration folder, where there is one)",
  )
  group.add_argument('--no-config', action='store_true', help='read no such file')


def parse(
  parser: argparse.ArgumentParser, command: str, argv: list[str]
) -> argparse.Namespace:
  """Parses a command line whose defaults a site's file may give.

  Args:
    parser: of the command, with the flags of `add_arguments`.
    command: its name.
    argv: its arguments.

  Raises:
    errors.UsageError: the file cannot be read, has a key or a value that none is, or
      gives two flags of which a command takes one.
  """
  chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add_arguments(chosen)
  path = find(chosen.parse_known_args(argv)[0])
  known = {action.dest for action in parser._actions}
  found = {} if path is None else _of_command(read(path), command, known)
  if path is None or not found:
    return parser.parse_args(argv)
  _require_one_of_each_group(path, found, parser)
  for action in parser._actions:
    if any(action.dest in values for values in found.values()):
      action.required = False
  given = parser.parse_args(argv)
  for name, values in found.items():
    parser.set_defaults(**_left(name, values, given, parser))
  return parser.parse_args(argv)


def source_of(error: errors.CovidTFError, argv: list[str]) -> str:
  """In words, which file gave the flag that an error names first; '' for none.

  Nobody finds a mistake in a file under the name of a flag that was not given.
  """
  flag = str(error).partition(':')[0].partition(' ')[0]
  if not flag.startswith('--') or any(word.partition('=')[0] == flag for word in argv):
    return ''
  chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  add_arguments(chosen)
  path = find(chosen.parse_known_args(argv)[0])
  key = flag.removeprefix('--').replace('-', '_')
  if path is None or not any(key in values for values in read(path).values()):
    return ''
  return f' It stands in {path}.'


def find(arguments: argparse.Namespace) -> pathlib.Path | None:
  """The file that the flags, the environment or the user's folder name, or None."""
  if arguments.no_config:
    return None
  if named := arguments.config or os.environ.get(VARIABLE):
    return pathlib.Path(named)
  base = os.environ.get('XDG_CONFIG_HOME') or os.path.expanduser('~/.config')
  path = pathlib.Path(base) / FILE_NAME
  return path if path.is_file() else None


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Table to key to value, as flags take them; paths are whole.

  Args:
    path: the file.

  Raises:
    errors.UsageError: it cannot be read, is no TOML, or has a key or a value of
      another kind than `_TABLES` names.
  """
  try:
    content = tomllib.loads(path.read_text('utf-8'))
  except OSError as error:
    raise errors.UsageError(
      f'{path}: a configuration file is required, found {error.strerror}.'
    ) from error
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise errors.UsageError(
      f'{path}: TOML in UTF-8 is required, found: {error}.'
    ) from error
  tables = {name: content.pop(name, {}) for name in _TABLES if name}
  tables[''] = content
  result: dict[str, dict[str, Any]] = {}
  for name, values in tables.items():
    if not isinstance(values, dict):
      raise errors.UsageError(f'{path}: [{name}] must be a table, found {values!r}.')
    result[name] = {
      key: _value(path, name, key, value) for key, value in values.items()
    }
  if {'server', 'models'} <= result['models'].keys():
    raise errors.UsageError(
      f'{path}: in [models] either server or models is required, found both.'
    )
  return result


def _value(path: pathlib.Path, table: str, key: str, value: Any) -> Any:
  kind = _TABLES[table].kinds.get(key)
  if kind is None:
    raise errors.UsageError(
      f'{path}: unknown key {_named(table, key)}; {_instead(table, key)}.'
    )
  right = {
    _NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
    _SWITCH: isinstance(value, bool),
  }.get(kind, isinstance(value, str) and value != '')
  # A case threshold is a number of cm³ or a file.
  if key == 'case_threshold' and isinstance(value, int | float):
    right, kind = not isinstance(value, bool), _NUMBER
  if not right:
    raise errors.UsageError(
      f'{path}: {_named(table, key)} must be {kind}, found {value!r}.'
    )
  if kind == _PATH or (key == 'case_threshold' and kind == _TEXT):
    return str(path.absolute().parent / value)
  # As on a command line, so that one place checks values.
  return str(value) if kind == _NUMBER else value


def _named(table: str, key: str) -> str:
  return f'{key} of [{table}]' if table else key


def _instead(table: str, key: str) -> str:
  """What is known in the place of an unknown key: its own table, or the right one."""
  tables = [f'[{name}]' for name in _TABLES if name]
  others = [
    f'[{name}]' for name, other in _TABLES.items() if name and key in other.kinds
  ]
  known = [*_TABLES[table].kinds, *([] if table else tables)]
  return f'known are {", ".join(known)}' + (
    f'; {key} stands in {" and ".join(others)}' if others else ''
  )


def _of_command(
  tables: Mapping[str, dict[str, Any]], command: str, known: Iterable[str]
) -> dict[str, dict[str, Any]]:
  """The tables that are for a command, with the flags that it has."""
  found = {
    name: {key: value for key, value in values.items() if key in known}
    for name, values in tables.items()
    if command in _TABLES[name].commands
  }
  return {name: values for name, values in found.items() if values}


def _require_one_of_each_group(
  path: pathlib.Path,
  found: Mapping[str, dict[str, Any]],
  parser: argparse.ArgumentParser,
) -> None:
  """What argparse refuses on a command line is refused in a file as well."""
  for name, values in found.items():
    chosen = {key for key, value in values.items() if value is not False}
    for group in parser._mutually_exclusive_groups:
      both = [action.dest for action in group._group_actions if action.dest in chosen]
      if len(both) > 1:
        raise errors.UsageError(
          f'{path}: one of {" and ".join(_named(name, key) for key in both)} is '
          'required, found both; leave one of them out.'
        )


def _left(
  name: str,
  values: dict[str, Any],
  given: argparse.Namespace,
  parser: argparse.ArgumentParser,
) -> dict[str, Any]:
  """What of a table remains beside flags of the command line."""

  def stands(flag: str) -> bool:
    return getattr(given, flag, None) != parser.get_default(flag)

  if any(map(stands, _TABLES[name].alone)):
    return {}
  others = tuple(keys for flag, keys in _TABLES[name].belonging.items() if stands(flag))
  return {
    key: value
    for key, value in values.items()
    if not key.startswith(others)
    and (key not in _EXCLUDING or not stands(_EXCLUDING[key]))
  }
