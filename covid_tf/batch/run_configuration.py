"""What makes results of an archive comparable: one configuration, beside them all."""

import dataclasses
import hashlib
import hmac
import json
import os
import pathlib

from covid_tf import results
from covid_tf import version
from covid_tf.readers import privacy
from covid_tf.storage import files
from covid_tf.storage.dicom import objects

_FOLDER = 'configurations'
_OF_READING = ('ignore_frame_of_reference', 'phase', 'select')
_OPTIONAL = (*_OF_READING, 'dicom')


@dataclasses.dataclass(frozen=True)
class Configuration:
  """Everything but the study that a result depends on.

  Attributes:
    models: (name, version, card digest) of each, lungs first.
    thresholds: of the score, as they were asked for.
    patient_key: digest that distinguishes one site's key file from another; None
      without one.
    resample_tilt: whether series with gantry tilt are straightened.
    software: name and version of this package.
    ignore_frame_of_reference, phase, select: as for `covid_tf.read_ct`.
    thickness_mm: that slices are averaged to; None: each is taken as it is.
    smoothing_mm: of the logits along the body; 0: none.
    dicom: which DICOM objects are in the results; None: none.
  """

  models: tuple[tuple[str, int, str], ...]
  thresholds: results.Thresholds
  patient_key: str | None = None
  resample_tilt: bool = False
  software: str = version.SOFTWARE
  ignore_frame_of_reference: bool = False
  phase: str | None = None
  select: str | None = None
  thickness_mm: float | None = None
  smoothing_mm: float = 0.0
  dicom: objects.Options | None = None

  @property
  def reading(self) -> dict[str, object]:
    """How a study is read, as keyword arguments of `covid_tf.read_ct`."""
    return {name: getattr(self, name) for name in ('resample_tilt', *_OF_READING)}

  @property
  def digest(self) -> str:
    """16 hex digits; equal for equal configurations, on every machine."""
    return hashlib.sha256(self._text().encode()).hexdigest()[:16]

  def save(self, output: str | os.PathLike) -> None:
    """Leaves the configuration beside the results, named by its digest.

    Raises:
      errors.OutputError: it cannot be written.
    """
    path = _path(output, self.digest)
    if not path.exists():
      files.write_atomically(path, f'{self._text()}\n'.encode())

  def difference(self, output: str | os.PathLike, digest: str) -> str:
    """Which parts differ from the configuration of another digest, in words."""
    try:
      other = json.loads(_path(output, digest).read_bytes())
    except (OSError, ValueError):
      return 'its record is lost'
    own = json.loads(self._text())
    names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    return f'{" and ".join(names)} differ' if names else 'nothing that is recorded'

  def _text(self) -> str:
    values = dataclasses.asdict(self)
    # Absent where nobody asks for it, so that results of before are of the same
    # configuration still.
    for name in _OPTIONAL:
      if not values[name]:
        del values[name]
    return json.dumps(values, sort_keys=True)


def model_triples(identities) -> tuple[tuple[str, int, str], ...]:
  """ModelIdentity objects as a configuration holds them."""
  return tuple((model.name, model.version, model.card_sha256) for model in identities)


def key_digest(patient_key_file: str | os.PathLike | None) -> str | None:
  """Distinguishes key files without disclosing a key.

  Raises:
    errors.UsageError: the file is unusable.
  """
  if patient_key_file is None:
    return None
  key = privacy.load_key(patient_key_file)
  return hmac.new(key, b'covid-tf batch configuration', hashlib.sha256).hexdigest()[:16]


def _path(output, digest: str) -> pathlib.Path:
  return pathlib.Path(output) / _FOLDER / f'{digest}.json'
