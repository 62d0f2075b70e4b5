"""What a run was asked to do, beside its weights; a folder holds one run."""

import json
import pathlib

from covid_tf import errors
from covid_tf import files
from covid_tf.models import trained


def claim(folder: pathlib.Path, configuration: dict) -> None:
  """Writes the configuration, or checks that it is the one that is there.

  Args:
    folder: of the run; made if missing.
    configuration: in JSON's types.

  Raises:
    errors.UsageError: the folder belongs to a run of another configuration.
    errors.OutputError: it cannot be written.
  """
  path = folder / trained.CONFIGURATION
  if not path.exists():
    text = json.dumps(configuration, indent=2, sort_keys=True) + '\n'
    files.write_atomically(path, text.encode())
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
