"""Where the demo's files lie, and whose folder may be written over."""

import dataclasses
import os
import pathlib
import shutil

from covid_tf import errors
from covid_tf import files

_README = """\
Made by `covid-tf demo`: phantoms drawn by a computer, not patients.
Everything here may be deleted; the next demo in this folder writes it anew.
"""
_MARKER = 'README.txt'


@dataclasses.dataclass(frozen=True)
class DemoFolder:
  """The demo's folder.

  Attributes:
    root: `--output`.
  """

  root: pathlib.Path

  @property
  def models(self) -> pathlib.Path:
    return self.root / 'models'

  def study(self, name: str) -> pathlib.Path:
    return self.root / 'studies' / name

  def truth(self, name: str) -> pathlib.Path:
    return self.root / 'truth' / name

  def result(self, name: str) -> pathlib.Path:
    return self.root / 'results' / name

  def timing(self, name: str) -> pathlib.Path:
    return self.root / 'timings' / f'{name}.json'

  @property
  def labels(self) -> pathlib.Path:
    return self.root / 'labels.csv'

  @property
  def summary(self) -> pathlib.Path:
    return self.root / 'summary.json'

  @property
  def page(self) -> pathlib.Path:
    return self.root / 'index.html'

  def clear(self) -> None:
    """Removes what an earlier demo left under these names."""
    for name in ('models', 'studies', 'truth', 'results', 'timings'):
      shutil.rmtree(self.root / name, ignore_errors=True)
    for path in (self.labels, self.summary, self.page):
      path.unlink(missing_ok=True)


def claim(root: str | os.PathLike) -> DemoFolder:
  """Marks a folder as the demo's.

  Args:
    root: an absent or empty folder, or one that an earlier demo left.

  Raises:
    errors.UsageError: it holds something else.
    errors.OutputError: it cannot be written.
  """
  root = pathlib.Path(root)
  if root.is_dir() and any(root.iterdir()) and not (root / _MARKER).is_file():
    raise errors.UsageError(
        f'--output {root}: an empty folder, or one of an earlier demo, is required; '
        'found other files in it. Choose another folder.')
  files.write_atomically(root / _MARKER, _README.encode())
  return DemoFolder(root)
