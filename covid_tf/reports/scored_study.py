"""One study from its files to its result folder: `covid-tf score` and the demo."""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import os

from covid_tf import case_threshold
from covid_tf import errors
from covid_tf import output_folder
from covid_tf import pipeline
from covid_tf import readers
from covid_tf import results
from covid_tf.predictors import base
from covid_tf.reports import study_files


def score_study(
    study: str | os.PathLike, output: str | os.PathLike,
    open_models: Callable[[], contextlib.AbstractContextManager[base.Models]], *,
    series_uid: str | None = None, patient_key_file: str | None = None,
    reading: Mapping[str, object] | None = None,
    threshold: case_threshold.CaseThreshold | None = None,
    demo_models: bool = False) -> results.CaseResult:
  """Reads, scores and writes a study; all of its files appear, or none.

  Args:
    study: folder of DICOM files, or a NIfTI file.
    output: where the files of study_files.NAMES appear.
    open_models: called once the study is read.
    series_uid: which series of the study; None where there is one.
    patient_key_file: a site's secret, or None.
    reading: further keyword arguments of `read_ct`, such as resample_tilt.
    threshold: of the case; None for no answer.
    demo_models: the models are the demo's, whatever their cards say.

  Returns:
    The result whose files are in `output` now.

  Raises:
    errors.CovidTFError: nothing appeared in `output`; says why.
  """
  with output_folder.filling(output, study_files.NAMES) as folder:
    volume = readers.read_ct(
        study, series_uid=series_uid, patient_key_file=patient_key_file,
        **(reading or {}))
    with open_models() as models:
      if threshold:
        threshold.require_same_models(models.identities())
      result = _analyze(study, volume, models, threshold)
    demo_models = demo_models or has_demo_card(result.models)
    study_files.write_all(folder, result, volume, demo_models=demo_models)
  return study_files.with_demo_warning(result) if demo_models else result


def has_demo_card(identities: Iterable[results.ModelIdentity]) -> bool:
  """Whether a model calls itself a demo model, from wherever it is served."""
  trainings = (model.card.get('training') for model in identities)
  return any(
      isinstance(training, dict) and training.get('demo_weights') is True
      for training in trainings)


def _analyze(study, volume, models, threshold) -> results.CaseResult:
  cuts = results.Thresholds(
      case_corona_score_cm3=threshold.corona_score_cm3 if threshold else None)
  try:
    result = pipeline.analyze(volume, models, thresholds=cuts)
  except errors.StudyRefusedError as error:
    raise type(error)(f'{study}: {error}') from error
  if threshold:
    # Again: the server may have changed models since.
    threshold.require_same_models(result.models)
  return result
