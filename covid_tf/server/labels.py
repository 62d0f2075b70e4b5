"""Version labels: names for versions, moved by configuration."""

from covid_tf.server import model_versions
from covid_tf.server import refusal

Labels = dict[str, dict[str, int]]


def new_labels(
    config, models: dict[str, model_versions.ModelVersions], current: Labels,
    allow_unavailable: bool) -> Labels:
  """Reads the labels of a new configuration.

  Args:
    config: a ModelServerConfig.
    models: what is served.
    current: the labels in force.
    allow_unavailable: a label that is new may name a version that is not
      available yet; one that moves never may.

  Returns:
    Model name to label to version.

  Raises:
    refusal.Refusal: a label names a version that is not available.
  """
  labels: Labels = {}
  for model in config.model_config_list.config:
    labels[model.name] = {}
    for label, number in sorted(model.version_labels.items()):
      moved = current.get(model.name, {}).get(label, number) != number
      if not _is_available(models.get(model.name), number) and (
          moved or not allow_unavailable):
        raise refusal.failed_precondition(
            f'Request to assign label to version {number} of model {model.name}, '
            'which is not currently available for inference')
      labels[model.name][label] = number
  return labels


def _is_available(model, number) -> bool:
  return model is not None and number in model.versions and (
      model.versions[number].state is model_versions.State.AVAILABLE)
