"""Described slices on disk, one file a study: what is there is not asked again.

A cohort's features outgrow memory and a run outlasts a night, so each study is
written when it is done, and read when its turn comes.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import json
import pathlib
import zipfile

import numpy as np

from covid_tf import errors
from covid_tf import files
from covid_tf.cohort import manifestation_slices

_CONFIGURATION = 'configuration'
_STUDY_UID = 'study_uid'


class FeatureStore:
  """A folder of described studies, all of one configuration.

  Attributes:
    folder: where the files are.
    configuration: what the features depend on (models, cuts, choice of slices).
  """

  def __init__(self, folder: pathlib.Path, configuration: Mapping):
    """Opens a store; the folder is made with its first study.

    Args:
      folder: where the files are.
      configuration: JSON values; files of another one are not read.
    """
    self.folder = pathlib.Path(folder)
    self.configuration = json.dumps(configuration, sort_keys=True)

  def path(self, source: str) -> pathlib.Path:
    """The file of a study; named by a digest, since folders are named by people."""
    return self.folder / f'{hashlib.sha256(source.encode()).hexdigest()[:24]}.npz'

  def holds(self, source: str) -> bool:
    """Whether the study is there, whole and of this configuration."""
    try:
      with np.load(self.path(source), allow_pickle=False) as stored:
        return str(stored[_CONFIGURATION]) == self.configuration
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
      return False

  def put(self, source: str, study: manifestation_slices.StudySlices) -> None:
    """Writes a study.

    Args:
      source: what the study is called in this run, unique.
      study: its described slices.

    Raises:
      errors.OutputError: it cannot be written.
    """
    with files.replacing(self.path(source)) as temporary:
      with open(temporary, 'wb') as file:
        np.savez(file, **{_CONFIGURATION: np.array(self.configuration)}, **{
            field.name: np.asarray(getattr(study, field.name))
            for field in dataclasses.fields(study)})

  def get(self, source: str) -> manifestation_slices.StudySlices:
    """Reads a study.

    Raises:
      errors.UsageError: its file is damaged or of another configuration.
    """
    path = self.path(source)
    try:
      with np.load(path, allow_pickle=False) as stored:
        if str(stored[_CONFIGURATION]) != self.configuration:
          raise ValueError('another configuration')
        return manifestation_slices.StudySlices(**{
            field.name: (str(stored[field.name]) if field.name == _STUDY_UID
                         else stored[field.name])
            for field in dataclasses.fields(manifestation_slices.StudySlices)})
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
      raise errors.UsageError(
          f'{path}: described slices of this run are required, found {error}; remove '
          'the file and run the command again.') from error

  def studies(self, sources: list[str]) -> Iterator[manifestation_slices.StudySlices]:
    """Reads the studies one after the other."""
    for source in sources:
      yield self.get(source)
