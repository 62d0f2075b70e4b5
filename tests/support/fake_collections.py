"""Small fakes of public collections: their layout, not their data.

The layouts are written from what is known of the collections; none of them was at
hand, so these fakes show that the importers do what they say, not that a download of
today looks like this.
"""

import pathlib

import matplotlib.image
import nibabel
import numpy as np

from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written

SHAPE = (8, 48, 40)  # Slices, rows, columns.
_SPACING_MM = (8.0, 6.0, 6.0)
# NIfTI axes (column, row, slice) of a patient on the back: LPS to RAS turns x and y.
AFFINE = np.diag((-_SPACING_MM[2], -_SPACING_MM[1], _SPACING_MM[0], 1.0))


def chest(seed: int = 0) -> np.ndarray:
  """int16 [slice, row, column]: a body with two lungs, and a mark by slice."""
  hu = np.full(SHAPE, -1000, np.int16)
  hu[:, 6:42, 4:36] = 40
  hu[:, 12:34, 8:18] = hu[:, 12:34, 22:32] = -850
  noise = np.random.default_rng(seed).integers(-20, 20, SHAPE)
  hu = hu + noise.astype(np.int16)
  hu[:, 38, 10] = 100 + np.arange(SHAPE[0])  # The slice's number, in the back.
  return hu


def lungs() -> np.ndarray:
  """uint8 [slice, row, column]: the lungs of `chest`."""
  mask = np.zeros(SHAPE, np.uint8)
  mask[:, 12:34, 8:18] = mask[:, 12:34, 22:32] = 1
  return mask


def lesion(slices=(3, 4)) -> np.ndarray:
  """uint8 [slice, row, column]: a lesion in the right lung of some slices."""
  mask = np.zeros(SHAPE, np.uint8)
  mask[list(slices), 20:26, 10:16] = 1
  return mask


def save(path: pathlib.Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
  """Writes [slice, row, column] as NIfTI with the axes that `affine` speaks of."""
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)


def own(folder: pathlib.Path, patients: int = 6) -> pathlib.Path:
  """Our own layout: two studies of the first patient, every second one positive."""
  lines = ['study,patient,slice,label']
  for number in range(patients):
    save(folder / 'studies' / f's{number}.nii.gz', chest(number))
    save(folder / 'lung_masks' / f's{number}.nii.gz', lungs())
    patient = f'p{max(number, 1)}'
    if number % 2:
      save(folder / 'lesion_masks' / f's{number}.nii.gz', lesion())
      lines.append(f's{number},{patient},,1')
    else:
      lines.append(f's{number},{patient},,0')
  (folder / 'labels.csv').write_text('\n'.join(lines) + '\n')
  return folder


def ct_seg(folder: pathlib.Path) -> pathlib.Path:
  """COVID-19-CT-Seg: one volume in HU, one windowed, two of one radiopaedia case."""
  names = ('coronacases_001', 'radiopaedia_10_85902_1', 'radiopaedia_10_85902_3')
  for number, name in enumerate(names):
    hu = chest(number)
    if name.startswith('radiopaedia'):
      grey = np.clip((hu + 1250.0) * 255.0 / 1500.0, 0, 255)
      hu = np.rint(grey).astype(np.uint8)
    save(folder / 'COVID-19-CT-Seg_20cases' / f'{name}.nii.gz', hu)
    save(folder / 'Lung_Mask' / f'{name}.nii.gz', lungs() * 2)
    save(folder / 'Infection_Mask' / f'{name}.nii.gz', lesion())
  return folder


def mosmed(folder: pathlib.Path) -> pathlib.Path:
  """MosMedData: a normal study, one with a mask, one with its class alone."""
  for number, severity in ((1, 'CT-0'), (255, 'CT-1'), (900, 'CT-3')):
    save(folder / 'studies' / severity / f'study_{number:04d}.nii.gz', chest(number))
  save(folder / 'masks' / 'study_0255_mask.nii.gz', lesion())
  return folder


def covidx(folder: pathlib.Path) -> pathlib.Path:
  """COVIDx-CT: three patients of two sources; one scan labelled by a model."""
  images = folder / '3A_images'
  images.mkdir(parents=True)
  rows = {
    'train': [('NCP_96_1328', 2), ('137covid_patient1_SR_3', 2), ('CP_5_7', 1)],
    'test': [('Normal_2_3', 0)],
  }
  for name, scans in rows.items():
    lines = []
    for scan, kind in scans:
      for number, hu in enumerate(chest()[:3]):
        suffix = 'IM' if 'SR' in scan else ''
        file = f'{scan}_{suffix}{number:04d}.png'
        grey = np.clip((hu + 1350.0) * 255.0 / 1500.0, 0, 255).astype(np.uint8)
        matplotlib.image.imsave(
          images / file, np.repeat(grey[..., np.newaxis], 3, axis=2)
        )
        lines.append(f'{file} {kind} 4 6 36 42')
    (folder / f'{name}_COVIDx_CT-3A.txt').write_text('\n'.join(lines) + '\n')
  (folder / 'metadata.csv').write_text(
    'patient id,source,slice selection\nNCP_96,CNCB,Expert\nCP_5,CNCB,Expert\n'
    '137covid_patient1,COVID-CTSet,Automatic\nNormal_2,CNCB,Expert\n'
  )
  return folder


def covid_ct_md(folder: pathlib.Path) -> dict[str, int]:
  """COVID-CT-MD: file names that do not follow the slices; gives slice counts.

  P001 is labelled in its most superior three slices.
  """
  counts = {}
  for seed, (group, name) in enumerate(
    (
      ('COVID-19 subjects', 'P001'),
      ('COVID-19 subjects', 'P002'),
      ('CAP subjects', 'cap001'),
      ('Normal subjects', 'normal001'),
    )
  ):
    case = phantom.draw_case(seed, 'none', matrix=96, slice_spacing_mm=20.0)
    drawn = phantom.generate(case)
    target = folder / group / name
    written.write_study(drawn, target)
    files = sorted(path for path in target.iterdir() if path.is_file())
    order = np.random.default_rng(seed).permutation(len(files))
    for number, path in zip(order, files):
      path.rename(target / f'_{number}.tmp')
    for path in sorted(target.glob('*.tmp')):
      path.rename(path.with_suffix('.dcm'))
    counts[name] = len(files)
  labels = np.zeros((2, 200), np.int64)
  labels[0, :3] = 1
  labels[1, 1] = 1
  np.save(folder / 'Slice-level-labels.npy', 1 - labels)
  np.save(folder / 'Slice-level-labels-updated-1.npy', labels.astype(np.int32))
  (folder / 'Index.csv').write_text(
    'Label Index,Diagnosis,Relative Path,Folder/ID\n'
    '42,COVID-19,./COVID-19/,P001\n44,CAP,./CAP/,cap001\n'
  )
  return counts
