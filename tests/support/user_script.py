"""All of the public API as a user writes it, for tests: checked by mypy --strict.

Never run: its paths are a user's.
"""

import json
import pathlib

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK

import covid_tf


def volumes(hu: npt.NDArray[np.int16]) -> list[covid_tf.CTVolume]:
  """Every way in."""
  first = covid_tf.read_ct('study/', series_uid=None, phase='TriggerTime=450')
  return [
    first,
    covid_tf.read_ct(pathlib.Path('ct.nrrd'), select='thickness=thinnest'),
    covid_tf.CTVolume.from_array(hu, spacing_mm=(5, 0.7, 0.7), orientation='LPS'),
    covid_tf.CTVolume.from_array(
      hu, spacing_mm=[5.0, 0.7, 0.7], direction=np.eye(3), origin=(0, 0, 0)
    ),
    covid_tf.CTVolume.from_sitk(SimpleITK.ReadImage('ct.mha')),
    covid_tf.CTVolume.from_nibabel(nibabel.load('ct.nii.gz')),
    covid_tf.CTVolume(hu, np.eye(4)),
  ]


def back(volume: covid_tf.CTVolume) -> tuple[float, float, float]:
  """Every way back."""
  image: SimpleITK.Image = volume.to_sitk()
  SimpleITK.WriteImage(image, 'ct.nrrd')
  nibabel.save(volume.to_nibabel(), 'ct.nii.gz')
  places: np.ndarray = volume.index_to_lps_mm((0, 0, 0))
  volume.lps_mm_to_index(places)
  print(volume.shape, volume.voxel_volume_mm3, volume.warnings, volume.affine[2, 3])
  return volume.spacing_mm


def scored(volume: covid_tf.CTVolume) -> list[covid_tf.CaseResult]:
  """Every way to a result."""
  thresholds = covid_tf.Thresholds(map=0.6, case_corona_score_cm3=50.0)
  found = [covid_tf.analyze(volume), covid_tf.analyze('ct.nii.gz', progress=False)]
  found.append(covid_tf.analyze(volume.to_sitk(), thresholds=thresholds))
  found.append(covid_tf.analyze(volume.to_nibabel(), exclude_slices=[0, 1]))
  lobes = covid_tf.LabelMap(np.zeros(volume.shape, np.uint16), {1: 'right_upper_lobe'})
  with covid_tf.load_models('exported/') as models:
    found.append(covid_tf.analyze(volume, models, regions=lobes))
  with covid_tf.connect('localhost:8500', timeout_s=60.0) as server:
    found.append(covid_tf.analyze(volume, server, lung_mask=np.ones(volume.shape)))
  found.append(covid_tf.rescore('result/', volume, map_threshold=0.7))
  return found


def out(result: covid_tf.CaseResult, volume: covid_tf.CTVolume) -> str:
  """Every way out."""
  folder: pathlib.Path = result.save('result/', volume)
  again: covid_tf.CaseResult = covid_tf.load_result(folder)
  again.plot(volume).savefig('result.png')
  again.plot()
  table = covid_tf.results_table([folder])
  print(table, covid_tf.results_table('results/'), covid_tf.__version__)
  share: float = result.involved_lung_fraction
  print(f'{result.corona_score_cm3 + share:.1f}', result.localization.to_volume().max())
  return json.dumps(result.to_dict())


def careful(path: str) -> str:
  """Every error."""
  try:
    return repr(covid_tf.analyze(covid_tf.read_ct(path)))
  except (covid_tf.CTReadError, covid_tf.NoLungsError) as error:
    return f'refused: {error}'
  except (covid_tf.UsageError, covid_tf.OutputError, covid_tf.ModelError) as error:
    return f'to be mended: {error}'
  except covid_tf.CovidTFError as error:
    return f'{error}'
