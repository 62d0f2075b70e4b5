r"""Exports trained networks as SavedModels that a TF Serving can load.

  python -m covid_tf.training.export_models --output=models \
      --lungs=runs/lungs --classifier=runs/classifier --card=runs/training.json

Each network is given as the folder of a run or as a .weights.h5 file, and gets the
next free version number. An export is compared with its source, as a server runs
it, before it gets its name; one that differs is not left.
"""

from absl import flags

from covid_tf import contract
from covid_tf import errors
from covid_tf.training import script

_FLAGS = flags.FlagValues()  # Its own: modules are imported together too.
_LUNGS = flags.DEFINE_string(
  'lungs', None, "U-Net: run, weights or 'demo'.", flag_values=_FLAGS
)
_CLASSIFIER = flags.DEFINE_string(
  'classifier', None, 'Classifier: likewise.', flag_values=_FLAGS
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Gets lungs/VERSION and classifier/VERSION.',
  required=True,
  flag_values=_FLAGS,
)
_VERSION = flags.DEFINE_integer(
  'version',
  None,
  'Number of the export; the next free one by default.',
  lower_bound=1,
  flag_values=_FLAGS,
)
_CARD = flags.DEFINE_string(
  'card',
  None,
  "JSON object: under 'lungs' and 'classifier', what each was trained on and "
  "reached; added to the run's own flags.",
  flag_values=_FLAGS,
)
_COMPUTE_DTYPE = flags.DEFINE_enum(
  'compute_dtype',
  'float32',
  ['float32', 'bfloat16'],
  'bfloat16 is faster on CPUs and GPUs that have it; docs/grad_cam.md says what '
  'it does to the answers.',
  flag_values=_FLAGS,
)
_LOGIT_SHIFT = flags.DEFINE_float(
  'logit_shift',
  None,
  "Added to the bias of the classifier's logit, so that its operating point lies at "
  '0.5; tools/choose_shift.py chooses it.',
  flag_values=_FLAGS,
)
_LOGIT_SHIFT_SOURCE = flags.DEFINE_string(
  'logit_shift_source', '', 'Where it was chosen, for the card.', flag_values=_FLAGS
)


def main():
  """Prints the folder of each export."""
  for path in export_all():
    print(path)


def export_all():
  """Yields the folder of each export, as the flags say."""
  from covid_tf.models import export
  from covid_tf.models import signatures
  from covid_tf.models import weights

  sources = {
    contract.LUNGS_MODEL: _LUNGS.value,
    contract.CLASSIFIER_MODEL: _CLASSIFIER.value,
  }
  if not any(sources.values()):
    raise errors.UsageError('--lungs or --classifier is required, found neither.')
  script.check_shift(_LOGIT_SHIFT, _LOGIT_SHIFT_SOURCE, _CLASSIFIER)
  card = signatures.read_training_card(_CARD.value) if _CARD.value else {}
  for name, source in sources.items():
    if source:
      model, training = weights.load_network(name, source)
      training = training | card.get(name, {})
      if name == contract.CLASSIFIER_MODEL and _LOGIT_SHIFT.value is not None:
        training = weights.shift_logit(
          model, training, _LOGIT_SHIFT.value, _LOGIT_SHIFT_SOURCE.value
        )
      yield export.export(
        name,
        model,
        _OUTPUT.value,
        training,
        _VERSION.value,
        _COMPUTE_DTYPE.value,
      )


def run():
  """Runs the script with the flags of the command line."""
  script.run(main, _FLAGS, help_=__doc__, needs_tensorflow=True)


if __name__ == '__main__':
  run()
