r"""Imports a collection of CT into shards that the training scripts read.

  python -m covid_tf.training.import_dataset --output=runs/data --collection=own \
      --folder=my_data
  python -m covid_tf.training.import_dataset --output=runs/phantom --collection=phantom
  python -m covid_tf.training.import_dataset --output=runs/implanted \
      --collection=implanted --slices=2400 --sets=train=1 --backgrounds=chest1 \
      --backgrounds=chest2

Writes a folder for every set (train, validation, test; or fold0, fold1, ... with
--folds), manifest.csv, shards.csv, splits.csv and splits.json. docs/training.md has
the layouts.
"""

from absl import flags
import tqdm

from covid_tf import errors
from covid_tf.datasets import splits
from covid_tf.datasets.collections import covid_ct_md
from covid_tf.datasets.collections import covidx_ct
from covid_tf.datasets.collections import ct_seg
from covid_tf.datasets.collections import implanted
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import mosmed
from covid_tf.datasets.collections import own_layout
from covid_tf.datasets.collections import phantoms
from covid_tf.training import script

_FLAGS = flags.FlagValues()  # Its own: modules are imported together too.
_FROM_FOLDER = {module.NAME: module for module in (own_layout, ct_seg, mosmed)}
_NAMES = (
  *_FROM_FOLDER,
  covid_ct_md.NAME,
  covidx_ct.NAME,
  phantoms.NAME,
  implanted.NAME,
)

_COLLECTION = flags.DEFINE_enum(
  'collection', None, _NAMES, 'What to import.', required=True, flag_values=_FLAGS
)
_FOLDER = flags.DEFINE_string(
  'folder', None, 'Folder of the collection.', flag_values=_FLAGS
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder to make.', required=True, flag_values=_FLAGS
)
_SETS = flags.DEFINE_list(
  'sets',
  ['train=0.7', 'validation=0.15', 'test=0.15'],
  'Shares of the patients.',
  flag_values=_FLAGS,
)
_FOLDS = flags.DEFINE_integer(
  'folds', None, 'Folds instead of --sets.', flag_values=_FLAGS
)
_GIVEN_SETS = flags.DEFINE_bool(
  'given_sets', False, "The collection's own sets.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Source of every draw.', lower_bound=0, flag_values=_FLAGS
)
_SIZE = flags.DEFINE_integer(
  'size',
  256,
  'Largest side stored; 0 keeps slices as they are.',
  lower_bound=0,
  flag_values=_FLAGS,
)
_THICKNESS_MM = flags.DEFINE_float(
  'thickness_mm',
  None,
  'Average slices that lie closer to slabs this thick; slices as they are by default.',
  flag_values=_FLAGS,
)
_ALLOW_EMPTY_CLASS = flags.DEFINE_bool(
  'allow_empty_class',
  False,
  'Accept a set without positives or negatives.',
  flag_values=_FLAGS,
)
_PNEUMONIA = flags.DEFINE_enum(
  'pneumonia',
  'leave_out',
  ('leave_out', 'negative'),
  'Other pneumonia (covid-ct-md, covidx-ct).',
  flag_values=_FLAGS,
)
_MODEL_LABELS = flags.DEFINE_bool(
  'model_labels',
  False,
  'Take slices that a model labelled (covidx-ct).',
  flag_values=_FLAGS,
)
_WINDOW = flags.DEFINE_string(
  'window',
  None,
  'LOW,HIGH in HU that 0 and 255 stand for (covidx-ct).',
  flag_values=_FLAGS,
)
_PHANTOMS = flags.DEFINE_integer(
  'phantoms', 50, 'Phantom patients.', flag_values=_FLAGS
)
_FIRST_SEED = flags.DEFINE_integer(
  'first_seed', 0, 'Seed of the first phantom.', flag_values=_FLAGS
)
_BACKGROUNDS = flags.DEFINE_multi_string(
  'backgrounds',
  [],
  'CT series of a chest without disease (implanted).',
  flag_values=_FLAGS,
)
_BACKGROUND_SHARES = flags.DEFINE_list(
  'background_shares',
  [],
  'Share of the slices that each of --backgrounds gives, in their order; equal ones '
  'by default (implanted).',
  flag_values=_FLAGS,
)
_SINGLE_BACKGROUNDS = flags.DEFINE_string(
  'single_backgrounds',
  None,
  'Table of single slices (file,label[,patient]); those of label 0 are one more '
  'background (implanted).',
  flag_values=_FLAGS,
)
_LESION_SLICES = flags.DEFINE_string(
  'lesion_slices',
  None,
  'Table of boxes around real lesions (file,row0,column0,row1,column1) that a third of '
  'the opacities look like (implanted).',
  flag_values=_FLAGS,
)
_SLICES = flags.DEFINE_integer(
  'slices', 2400, 'Slices to draw (implanted).', flag_values=_FLAGS
)


def main():
  """Imports, as the flags say."""
  if _THICKNESS_MM.value is not None:
    script.check_thickness('--thickness_mm', _THICKNESS_MM.value)
  entries = _list_studies()
  split = _split(entries)
  # Here: lists that do not fit together are refused before TensorFlow starts.
  from covid_tf.training import importing

  print(f'{len(entries)} studies of {len(split.set_of)} patients')
  imported = importing.write_shards(
    entries,
    split,
    _OUTPUT.value,
    _SIZE.value,
    tqdm.tqdm,
    _ALLOW_EMPTY_CLASS.value,
    _THICKNESS_MM.value,
  )
  for name, slices in imported.slices.items():
    counts = ', '.join(f'{count} {word}' for word, count in slices.items())
    print(f'{name}: {imported.patients[name]} patients; slices: {counts}')
  if imported.left_out:
    print(
      f'{len(imported.left_out)} studies left out: see '
      f'{_OUTPUT.value}/{importing.LEFT_OUT_NAME}'
    )


def _list_studies():
  name = _COLLECTION.value
  if name == phantoms.NAME:
    return phantoms.list_studies(_PHANTOMS.value, _FIRST_SEED.value, _SIZE.value or 256)
  if name == implanted.NAME:
    return implanted.list_studies(
      _BACKGROUNDS.value,
      _SLICES.value,
      _SEED.value,
      _SIZE.value,
      implanted.parse_shares(_BACKGROUND_SHARES.value),
      _THICKNESS_MM.value,
      _SINGLE_BACKGROUNDS.value,
      _LESION_SLICES.value,
    )
  if not _FOLDER.value:
    raise errors.UsageError(f'--folder is required for {name}, found none.')
  negative = _PNEUMONIA.value == 'negative'
  if name == covid_ct_md.NAME:
    return covid_ct_md.list_studies(_FOLDER.value, negative)
  if name == covidx_ct.NAME:
    return covidx_ct.list_studies(
      _FOLDER.value,
      mask_files.parse_window(_WINDOW.value),
      negative,
      not _MODEL_LABELS.value,
    )
  return _FROM_FOLDER[name].list_studies(_FOLDER.value)


def _split(entries):
  if _GIVEN_SETS.value:
    return splits.given((e.patient, e.stratum, e.given_set) for e in entries)
  stratum_of = splits.strata((entry.patient, entry.stratum) for entry in entries)
  if _FOLDS.value is not None:
    return splits.k_folds(stratum_of, _FOLDS.value, _SEED.value)
  return splits.by_fractions(stratum_of, splits.parse_shares(_SETS.value), _SEED.value)


def run():
  """Runs the script with the flags of the command line."""
  script.run(main, _FLAGS, help_=__doc__, needs_tensorflow=True)


if __name__ == '__main__':
  run()
