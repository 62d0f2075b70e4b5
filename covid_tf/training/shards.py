"""TFRecord shards looked through before training, so that nothing fails hours later."""

from collections.abc import Iterable, Sequence
import dataclasses
import glob
import pathlib

import numpy as np
import tensorflow as tf

from covid_tf import errors
from covid_tf.datasets.collections import study as study_lib
from covid_tf.storage import files

_ASKED = {
  'label': tf.io.FixedLenFeature([], tf.int64),
  'shape': tf.io.FixedLenFeature([2], tf.int64),
  'hu': tf.io.FixedLenFeature([], tf.string),
  'lesion_mask': tf.io.FixedLenFeature([], tf.string),
}


@dataclasses.dataclass(frozen=True)
class Shards:
  """The shards of one pattern and what they hold.

  Attributes:
    pattern: as the user wrote it.
    paths: the files, sorted.
    count: slices.
    negatives: slices labelled 0.
    positives: slices labelled 1.
    drawn: of them, those whose lesions are drawn.
  """

  pattern: str
  paths: tuple[str, ...]
  count: int
  negatives: int
  positives: int
  drawn: int

  @property
  def labelled(self) -> int:
    """Slices whose label is known."""
    return self.negatives + self.positives


def look_through(pattern: str) -> Shards:
  """Reads every record of the files that match, with its checksum.

  Raises:
    errors.UsageError: no file matches, or one is damaged or of another kind.
  """
  paths = tuple(sorted(glob.glob(pattern)))
  if not paths:
    raise errors.UsageError(
      f'{pattern}: TFRecord shards are required, no file matches; quote the '
      'pattern and check the folder.'
    )
  slices = [found for path in paths for found in _slices(path)]
  if not slices:
    raise errors.UsageError(
      f'{pattern}: slices are required, found none; write the shards again.'
    )
  labels = [label for label, _ in slices]
  return Shards(
    pattern,
    paths,
    len(labels),
    labels.count(0),
    labels.count(1),
    slices.count((1, True)),
  )


def require_both_classes(which: str, sets: Sequence[Shards]) -> None:
  """Refuses sets that a classifier can learn nothing from, or not be judged by.

  Args:
    which: what they are for, such as '--shards'.
    sets: taken together.

  Raises:
    errors.UsageError: a class is empty.
  """
  negatives = sum(shards.negatives for shards in sets)
  positives = sum(shards.positives for shards in sets)
  if not negatives or not positives:
    patterns = ', '.join(shards.pattern for shards in sets)
    raise errors.UsageError(
      f'{which}: slices of both classes are required, found {negatives} negative '
      f'and {positives} positive in {patterns}; add shards of the other class.'
    )


def require_drawn_lesions(which: str, sets: Sequence[Shards]) -> None:
  """Refuses sets from which a guided stage could learn nothing.

  Raises:
    errors.UsageError: no positive slice has its lesions drawn.
  """
  if not any(shards.drawn for shards in sets):
    raise errors.UsageError(
      f'{which}: positive slices with drawn lesions are required by a guided stage, '
      'found none; add phantoms, implanted lesions or lesion masks, or leave the '
      'stage out.'
    )


def _slices(path: str) -> list[tuple[int, bool]]:
  """(label, whether lesions are drawn) of every record."""
  dataset = tf.data.TFRecordDataset(path).map(_asked_of)
  slices: list[tuple[int, bool]] = []
  try:
    for label, is_drawn, sound in dataset.as_numpy_iterator():
      if not sound:
        raise errors.UsageError(
          f'{path}: record {len(slices)} must hold int16 HU of its stated shape, '
          'found another length; write the shard again.'
        )
      slices.append((int(label), bool(is_drawn)))
  except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
    raise errors.UsageError(
      f'{path}: a shard of CT slices is required, found a damaged file or one of '
      f'another kind at record {len(slices)}; write it again.'
    ) from error
  return slices


def _asked_of(example):
  features = tf.io.parse_single_example(example, _ASKED)
  stated = 2 * tf.reduce_prod(features['shape'])
  length = tf.cast(tf.strings.length(features['hu']), tf.int64)
  is_drawn = tf.strings.length(features['lesion_mask']) > 0
  return features['label'], is_drawn, stated == length


# TFRecord shards of CT slices: what both networks train on.


@dataclasses.dataclass(frozen=True)
class SliceRecord:
  """One slice with all that training asks of it.

  Attributes:
    hu: int16 [row, column], HU.
    lung_mask: uint8 [row, column], 0 or 1; all zero where there is none.
    lesion_mask: uint8 [row, column], 0 or 1; None where nobody has drawn it.
    box: [row0, column0, row1, column1], the lung box of the case, half open.
    label: 1 COVID, 0 not, -1 unknown.
    pixel_mm: in-plane spacing in millimetres.
    patient: a key of the patient, never an identifier of a living one.
    series: series UID or the collection's own name of it.
    slice_index: from the lowest slice.
    source: the collection, and 'implanted' or 'phantom' where that is so.
    lung_mask_kind: 'drawn', 'pseudo' (classical segmentation), 'none'; '' in shards
      older than this field.
    case_label: 1 COVID, 0 not, -1 unknown: of the patient.
    slice_mm: distance between slices in millimetres; 0 where slices are no stack.
    window_hu: (low, high) of grey values that were turned back into HU; (0, 0)
      where the source holds HU.
    manufacturer, kernel: of the scan; '' where they are not stated.
    nominal_thickness_mm: thickness of the slices as they were imaged; 0 where it is
      not stated.
  """

  hu: np.ndarray
  lung_mask: np.ndarray
  lesion_mask: np.ndarray | None
  box: tuple[int, int, int, int]
  label: int
  pixel_mm: float
  patient: str
  series: str
  slice_index: int
  source: str
  lung_mask_kind: str = ''
  case_label: int = study_lib.UNLABELLED
  slice_mm: float = 0.0
  window_hu: tuple[float, float] = (0.0, 0.0)
  manufacturer: str = ''
  kernel: str = ''
  nominal_thickness_mm: float = 0.0


_FEATURES = {
  'hu': tf.io.FixedLenFeature([], tf.string),
  'lung_mask': tf.io.FixedLenFeature([], tf.string),
  'lesion_mask': tf.io.FixedLenFeature([], tf.string),
  'shape': tf.io.FixedLenFeature([2], tf.int64),
  'box': tf.io.FixedLenFeature([4], tf.int64),
  'label': tf.io.FixedLenFeature([], tf.int64),
  'pixel_mm': tf.io.FixedLenFeature([], tf.float32),
  'patient': tf.io.FixedLenFeature([], tf.string),
  'series': tf.io.FixedLenFeature([], tf.string),
  'slice_index': tf.io.FixedLenFeature([], tf.int64),
  'source': tf.io.FixedLenFeature([], tf.string),
  # Later than the first shards, which lack them: hence the defaults.
  'lung_mask_kind': tf.io.FixedLenFeature([], tf.string, ''),
  'case_label': tf.io.FixedLenFeature([], tf.int64, study_lib.UNLABELLED),
  'slice_mm': tf.io.FixedLenFeature([], tf.float32, 0.0),
  'window_hu': tf.io.FixedLenFeature([2], tf.float32, (0.0, 0.0)),
  'manufacturer': tf.io.FixedLenFeature([], tf.string, ''),
  'kernel': tf.io.FixedLenFeature([], tf.string, ''),
  'nominal_thickness_mm': tf.io.FixedLenFeature([], tf.float32, 0.0),
}


def write_shard(path: pathlib.Path, records: Iterable[SliceRecord]) -> int:
  """Writes one shard, whole or not at all; returns its count."""
  count = 0
  with files.replacing(path) as temporary:
    with tf.io.TFRecordWriter(str(temporary)) as writer:
      for record in records:
        writer.write(serialize_record(record))
        count += 1
  return count


def serialize_record(record: SliceRecord) -> bytes:
  """One record as the bytes of a tf.train.Example."""
  lesion_mask = (
    b''
    if record.lesion_mask is None
    else np.ascontiguousarray(record.lesion_mask, 'u1').tobytes()
  )
  return tf.train.Example(
    features=tf.train.Features(
      feature={
        'hu': _bytes(np.ascontiguousarray(record.hu, '<i2').tobytes()),
        'lung_mask': _bytes(np.ascontiguousarray(record.lung_mask, 'u1').tobytes()),
        'lesion_mask': _bytes(lesion_mask),
        'shape': _ints(record.hu.shape),
        'box': _ints(record.box),
        'label': _ints([record.label]),
        'pixel_mm': _floats([record.pixel_mm]),
        'patient': _bytes(record.patient.encode()),
        'series': _bytes(record.series.encode()),
        'slice_index': _ints([record.slice_index]),
        'source': _bytes(record.source.encode()),
        'lung_mask_kind': _bytes(record.lung_mask_kind.encode()),
        'case_label': _ints([record.case_label]),
        'slice_mm': _floats([record.slice_mm]),
        'window_hu': _floats(record.window_hu),
        'manufacturer': _bytes(record.manufacturer.encode()),
        'kernel': _bytes(record.kernel.encode()),
        'nominal_thickness_mm': _floats([record.nominal_thickness_mm]),
      }
    )
  ).SerializeToString()


def parse_record(example: tf.Tensor) -> dict[str, tf.Tensor]:
  """A serialized record as tensors.

  Returns:
    The record's fields by name: hu int16, lung_mask and lesion_mask uint8
    [row, column], and `lesion_known`, float32, 0 where lesion_mask is a stand-in.
  """
  features = tf.io.parse_single_example(example, _FEATURES)
  shape = features['shape']
  features['hu'] = tf.reshape(tf.io.decode_raw(features['hu'], tf.int16), shape)
  features['lung_mask'] = tf.reshape(
    tf.io.decode_raw(features['lung_mask'], tf.uint8), shape
  )
  lesion = tf.io.decode_raw(features['lesion_mask'], tf.uint8)
  features['lesion_known'] = tf.cast(tf.size(lesion) > 0, tf.float32)
  features['lesion_mask'] = tf.cond(
    tf.size(lesion) > 0,
    lambda: tf.reshape(lesion, shape),
    lambda: tf.zeros(shape, tf.uint8),
  )
  features['box'] = tf.cast(features['box'], tf.int32)
  return features


def _bytes(value: bytes) -> tf.train.Feature:
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values) -> tf.train.Feature:
  return tf.train.Feature(
    int64_list=tf.train.Int64List(value=[int(value) for value in values])
  )


def _floats(values) -> tf.train.Feature:
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))
