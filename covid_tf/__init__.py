"""COVID-19 opacities on chest CT: found, localized in 3D, measured in cm³.

  import covid_tf
  volume = covid_tf.read_ct('ct.nii.gz')  # Or a DICOM folder, .mha, .nrrd, a zip.
  result = covid_tf.analyze(volume)       # By the demo models; by others: models.
  result.save('result/', volume)          # result.json, report.html, map and mask.
  result.plot()                           # In a notebook; result.corona_score_cm3.

In: `read_ct`, `CTVolume.from_array`, `from_sitk`, `from_nibabel`. Models: `load_models`
(a folder, or the demo models), `connect` (a server). Out: `CaseResult`, `load_result`,
`results_table`; `rescore` corrects a stored result. Every error of ours is a
`CovidTFError` whose text says what to do.

Importing this package needs no TensorFlow; only `load_models` brings it in, and
`analyze` where it is given no models.
"""

import importlib

from covid_tf.version import __version__

# Public name -> its module. Each is imported when it is first asked for, so that
# a client that only reads CT waits for neither gRPC nor SciPy.
_HOMES = {
  'CTReadError': 'covid_tf.errors',
  'CTVolume': 'covid_tf.volume',
  'CaseResult': 'covid_tf.results',
  'CovidTFError': 'covid_tf.errors',
  'LabelMap': 'covid_tf.analysis.label_regions',
  'ModelError': 'covid_tf.errors',
  'NoLungsError': 'covid_tf.errors',
  'OutputError': 'covid_tf.errors',
  'Thresholds': 'covid_tf.results',
  'UsageError': 'covid_tf.errors',
  'analyze': 'covid_tf.analysis.pipeline',
  'connect': 'covid_tf.predictors',
  'load_models': 'covid_tf.predictors',
  'load_result': 'covid_tf.storage.result_folders',
  'read_ct': 'covid_tf.readers',
  'rescore': 'covid_tf.analysis.rescoring',
  'results_table': 'covid_tf.storage.result_folders',
}

__all__ = ('__version__', *_HOMES)


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)
