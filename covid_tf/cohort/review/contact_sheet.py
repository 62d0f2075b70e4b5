"""contact_sheet.html: key pictures of an archive, the most doubtful results first."""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import os
import pathlib
import posixpath
from urllib import parse

import nibabel as nib
import numpy as np

from covid_tf import errors
from covid_tf.analysis import pipeline
from covid_tf.cohort import results as results_lib
from covid_tf.cohort.review import decisions
from covid_tf.cohort.review import doubts as doubts_lib
from covid_tf.reports import case_report
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering
from covid_tf.storage import files
from covid_tf.storage import maps
from covid_tf.storage import result_json

FILE_NAME = results_lib.CONTACT_SHEET
FILE_NAMES = (decisions.FILE_NAME, FILE_NAME)
MOST_PICTURES = 200  # At about 20 kB each.
_VOXEL_MM = 4.0  # Of the lungs where there is no report to take them from.
_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class Looked:
  """One result, looked through.

  Attributes:
    folder: below the archive, with forward slashes.
    path: of the folder.
    stored: its numbers.
    doubts: reasons to look again, the weightiest first.
  """

  folder: str
  path: pathlib.Path
  stored: result_json.StoredResult
  doubts: tuple[doubts_lib.Doubt, ...]


@dataclasses.dataclass(frozen=True)
class Shown:
  """The pictures of one result.

  Attributes:
    key: coronal picture and lungs of its report, or None.
    front_uri: the lungs from the front, where there is no report; '' where there are
      no maps either.
  """

  key: case_report.KeyPictures | None
  front_uri: str = ''


@dataclasses.dataclass(frozen=True)
class Archive:
  """All results of an archive, the most doubtful first.

  Attributes:
    root: the folder that was searched.
    looked: the results.
    failed: what ends without a result that can be read.
  """

  root: pathlib.Path
  looked: tuple[Looked, ...]
  failed: tuple[results_lib.FailedStudy, ...]

  @property
  def doubtful(self) -> int:
    """How many results have a reason to look again."""
    return sum(doubts_lib.total(one.doubts) > 0 for one in self.looked)


def look_through(
  root: pathlib.Path | str, progress: pipeline.Progress = True
) -> Archive:
  """Reads every result below a folder and says what is doubtful about it.

  Args:
    root: the folder.
    progress: see `pipeline.progress_bar`.

  Raises:
    errors.UsageError: there is no such folder, or no result below it.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    raise errors.UsageError(f'{root}: a folder of results is required, found none.')
  failed: list[results_lib.FailedStudy] = []
  paths = list(results_lib.result_files(root, failed))
  looked: list[Looked] = []
  with (
    pipeline.progress_bar(
      progress, total=len(paths), desc='results', unit='result'
    ) as bar,
    futures.ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool,
  ):
    for found in pool.map(lambda path: _look_at(root, path), paths):
      if isinstance(found, Looked):
        looked.append(found)
      else:
        failed.append(found)
      bar.update(1)
  if not looked:
    raise errors.UsageError(
      f'{root}: at least one {result_json.FILE_NAME} of covid-tf score is required '
      f'below it, found none that can be read ({len(failed)} failed).'
    )
  looked.sort(key=lambda one: (-doubts_lib.total(one.doubts), one.folder))
  return Archive(
    root,
    tuple(looked),
    tuple(sorted(failed, key=lambda study: str(study.path))),
  )


def _look_at(
  root: pathlib.Path, path: pathlib.Path
) -> Looked | results_lib.FailedStudy:
  try:
    stored = result_json.read_result(path)
  except errors.UsageError as error:
    return results_lib.FailedStudy(path.parent, str(error))
  found = doubts_lib.of_numbers(stored) + _of_stored_mask(path.parent, stored)
  return Looked(
    folder_name(path, root),
    path.parent,
    stored,
    tuple(sorted(found, key=lambda doubt: -doubt.weight)),
  )


def folder_name(path: pathlib.Path, root: pathlib.Path) -> str:
  """Folder of a result.json below an archive, as review.csv names it."""
  folder = path.parent
  return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else '.'


def _of_stored_mask(
  folder: pathlib.Path, stored: result_json.StoredResult
) -> tuple[doubts_lib.Doubt, ...]:
  try:
    mask, _ = maps.read(folder / maps.MASK_NAME)
  except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError):
    return (
      doubts_lib.unreadable(
        f'No {maps.MASK_NAME} that can be read: the mask was not looked at.'
      ),
    )
  if mask.shape != stored.shape:
    return (
      doubts_lib.unreadable(f'{maps.MASK_NAME} is of another grid than the result.'),
    )
  return doubts_lib.of_mask((mask > 0).astype(np.uint8), stored)


def review_of(archive: Archive, path: pathlib.Path) -> decisions.Review:
  """The decisions in a review.csv that is there already; else none.

  Raises:
    errors.UsageError: it is no review of this archive.
  """
  folders = [one.folder for one in archive.looked]
  if not path.exists():
    return decisions.Review(path, dict.fromkeys(folders, decisions.Decision('')))
  return decisions.read_review(path, folders)


def write(
  archive: Archive, output: pathlib.Path | str, most_pictures: int = MOST_PICTURES
) -> decisions.Review:
  """Writes contact_sheet.html and review.csv; decisions made so far stay.

  Args:
    archive: as `look_through` gives it.
    output: the folder; the decisions of a review.csv in it are carried over.
    most_pictures: so many results are shown with pictures, the others in words.

  Returns:
    The decisions so far.

  Raises:
    errors.UsageError: the review.csv that is there is none of this archive.
    errors.OutputError: they cannot be written.
  """
  output = pathlib.Path(output)
  review = review_of(archive, output / decisions.FILE_NAME)
  with files.filling_folder(output, FILE_NAMES) as folder:
    rows = (
      decisions.Row(
        one.folder,
        review.decisions[one.folder],
        one.stored.corona_score_cm3,
        ' | '.join(doubt.text for doubt in one.doubts),
      )
      for one in archive.looked
    )
    (folder / decisions.FILE_NAME).write_bytes(decisions.template(rows))
    (folder / FILE_NAME).write_bytes(page(archive, review, output, most_pictures))
  return review


def page(
  archive: Archive,
  review: decisions.Review,
  output: pathlib.Path,
  most_pictures: int = MOST_PICTURES,
) -> bytes:
  """The page of `write`, as UTF-8."""
  with futures.ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
    shown = list(pool.map(_pictures, archive.looked[:most_pictures]))
  return pages.render(
    FILE_NAME,
    looked=archive.looked,
    shown=shown,
    links=_links(archive.looked, output),
    review=review,
    failed=[
      (results_lib.relative_name(study.path, archive.root), study.reason)
      for study in archive.failed
    ],
    doubtful=archive.doubtful,
    demo_models=any(one.stored.demo_models for one in archive.looked),
    window=pictures.WINDOW_HU,
  )


def _links(looked: Sequence[Looked], output: pathlib.Path) -> list[str]:
  """Relative address of each report; '' where there is none."""
  links = []
  for one in looked:
    report = one.path / case_report.FILE_NAME
    there = os.path.relpath(report.resolve(), output.resolve())
    link = posixpath.join(*pathlib.Path(there).parts)
    links.append(parse.quote(link) if report.is_file() else '')
  return links


def _pictures(one: Looked) -> Shown:
  key = case_report.read_key_pictures(one.path / case_report.FILE_NAME)
  if key:
    return Shown(key)
  try:
    mask, map_, affine = maps.read_maps(one.path, one.stored)
  except errors.UsageError:  # Said among the doubts.
    return Shown(None)
  if not mask.any():
    return Shown(None)
  scene = rendering.lung_scene(mask, map_, affine, _VOXEL_MM)
  return Shown(None, pictures.rgba_uri(rendering.render(scene, 0)))
