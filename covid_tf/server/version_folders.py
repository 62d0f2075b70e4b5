"""Which versions lie on the disk, and which of them the policy wants served."""

import pathlib

_READY_FILES = ('saved_model.pb', 'saved_model.pbtxt')


def versions_on_disk(base_path: str) -> dict[int, pathlib.Path]:
  """Finds the versions of a model that are whole enough to be loaded.

  A version is a folder with a number for a name ('00000123' is 123). Without its
  saved_model.pb it is still being copied, and not there yet.

  Args:
    base_path: the model's folder.

  Returns:
    Version number to folder.

  Raises:
    OSError: the folder cannot be listed.
  """
  found = {}
  for path in sorted(pathlib.Path(base_path).iterdir()):
    if path.name.isascii() and path.name.isdigit() and any(
        (path / name).is_file() for name in _READY_FILES):
      found.setdefault(int(path.name), path)
  return found


def fingerprint(folder: pathlib.Path) -> frozenset[tuple[str, int, int]]:
  """Tells whether the files of a version have changed.

  Args:
    folder: the version's.

  Returns:
    (path, bytes, time of the last change in ns) of every file; what cannot be
    looked at is left out.
  """
  found = set()
  for path in folder.rglob('*'):
    try:
      status = path.stat()
    except OSError:
      continue
    found.add((str(path), status.st_size, status.st_mtime_ns))
  return frozenset(found)


def wanted_versions(on_disk: dict[int, pathlib.Path], policy) -> set[int]:
  """Chooses by a ServableVersionPolicy; an empty one means the newest.

  Args:
    on_disk: as `versions_on_disk` gives it.
    policy: the `model_version_policy` of a ModelConfig.

  Returns:
    The versions to serve.
  """
  choice = policy.WhichOneof('policy_choice')
  if choice == 'all':
    return set(on_disk)
  if choice == 'specific':
    return set(policy.specific.versions) & set(on_disk)
  count = policy.latest.num_versions if choice == 'latest' else 1
  return set(sorted(on_disk)[-max(count, 1):])
