"""What a run was asked to do, beside its weights; a folder holds one run."""

import json
import pathlib

from covid_tf import errors
from covid_tf import files
from covid_tf.models import trained


def require_same(folder: pathlib.Path, configuration: dict) -> None:
  """Refuses a folder of a run that was asked to do something else.

  Args:
    folder: of the run, perhaps not there yet.
    configuration: in JSON's types.

  Raises:
    errors.UsageError: the folder belongs to a run of another configuration.
  """
  path = folder / trained.CONFIGURATION
  if not path.exists():
    return
  found = read(folder)
  differing = sorted(key for key in found.keys() | configuration.keys()
                     if found.get(key) != configuration.get(key))
  if differing:
    key = differing[0]
    raise errors.UsageError(
        f'{path}: this run was begun with {key} {json.dumps(found.get(key))}, found '
        f'{json.dumps(configuration.get(key))} now; give the same flags to go on, or '
        'another --output for another run.')


def claim(folder: pathlib.Path, configuration: dict) -> None:
  """Makes the folder that of a run, unless it is already.

  Raises:
    errors.UsageError: as in `require_same`.
    errors.OutputError: it cannot be written.
  """
  require_same(folder, configuration)
  path = folder / trained.CONFIGURATION
  if not path.exists():
    text = json.dumps(configuration, indent=2, sort_keys=True) + '\n'
    files.write_atomically(path, text.encode())


def read(folder: pathlib.Path) -> dict:
  """The configuration of a run; {} where there is none.

  Raises:
    errors.UsageError: the file is damaged.
  """
  path = folder / trained.CONFIGURATION
  if not path.is_file():
    return {}
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise errors.UsageError(
        f'{path}: the JSON of a run is required, found {error}; choose another '
        '--output.') from error
  if not isinstance(found, dict):
    raise errors.UsageError(
        f'{path}: a JSON object is required, found {type(found).__name__}; choose '
        'another --output.')
  return found
