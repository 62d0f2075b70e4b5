"""Structured report: the numbers of a result, tied to the segments and the images.

An Enhanced SR of root template TID 1500, unverified: no person has looked. What is
measured is in `measurement_groups`; here it becomes content items.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any

from highdicom import sr
import pydicom
from pydicom import uid
from pydicom.sr import codedict
from pydicom.sr import coding

from covid_tf import results
from covid_tf.storage import result_json
from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import measurement_groups
from covid_tf.storage.dicom import source as source_lib

# Of CID 100, and true of every CT; the codes of a chest's CT (LN 24627-2) are none of
# that group.
_PROCEDURE = coding.Code('25045-6', 'LN', 'CT unspecified body region')
_SOURCE = coding.Code('260753009', 'SCT', 'Source')
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
# Image Position (Patient) X, Y, Z (DCM): of one image, not of all of a group.
_OF_ONE_IMAGE = ('110901', '110902', '110903')

ATTENTION_IN_WORDS = (
  'Model attention is the region where the Grad-CAM map of a slice classifier is above '
  '{map:g}, in slices whose COVID probability is above {slice:g}. It is where the '
  'network looked: no drawn outline of an opacity, and no diagnosis. The Corona score '
  'is the sum of the map over that region.'
)
_RESEARCH = (
  'Research use only. Made by software, unverified: no person has confirmed it.'
)


def structured_report(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  segmentation: pydicom.Dataset,
  parametric_map: pydicom.Dataset,
) -> pydicom.Dataset:
  """The structured report of a result.

  Args:
    source: the series that was scored.
    result: the scored study.
    segmentation, parametric_map: its other objects, with their final UIDs.

  Returns:
    An Enhanced SR (TID 1500, explicit VR little endian), with its final UIDs.
  """
  with identity.quietly():
    made = sr.EnhancedSR(
      evidence=[*source.headers, segmentation, parametric_map],
      content=_document(source, result, segmentation, parametric_map)[0],
      is_complete=True,
      is_final=False,
      is_verified=False,
      contributing_equipment=identity.equipment(result),
      **identity.options(source, result, identity.REPORT),
    )
    made.CodingSchemeIdentificationSequence = [*identity.coding_schemes()]
    identity.finish(made)
  return made


def _document(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  segmentation: pydicom.Dataset,
  parametric_map: pydicom.Dataset,
) -> sr.MeasurementReport:
  makers = _Groups(source, result, segmentation, parametric_map)
  document = sr.MeasurementReport(
    observation_context=sr.ObservationContext(
      observer_device_context=_observer(result)
    ),
    procedure_reported=_PROCEDURE,
    imaging_measurements=[
      makers.made(group) for group in measurement_groups.groups_of(result)
    ],
    title=codedict.codes.DCM.ImagingMeasurementReport,
  )
  content = document[0].ContentSequence
  *before, measurements = content
  document[0].ContentSequence = sr.ContentSequence(
    [*before, *_texts(result), _image_library(source), measurements]
  )
  return document


def _observer(result: results.CaseResult) -> sr.ObserverContext:
  """The device that observed: this software with these models, and no person."""
  digests = (model.card_sha256 for model in result.models)
  device_uid = identity.derived_uid(identity.MODEL_NAME, result.software, *digests)
  return sr.ObserverContext(
    observer_type=codedict.codes.DCM.Device,
    observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
      uid=device_uid,
      name=identity.MODEL_NAME,
      manufacturer_name=identity.MANUFACTURER,
      model_name=result.software,
    ),
  )


# Words: what the numbers mean, and what speaks against them.


def _texts(result: results.CaseResult) -> Iterator[sr.TextContentItem]:
  for name, text in (
    (codedict.codes.DCM.Summary, summary(result)),
    *((codedict.codes.DCM.Comment, text) for text in comments(result)),
  ):
    yield sr.TextContentItem(name, text, relationship_type=_CONTAINS)


def summary(result: results.CaseResult) -> str:
  """Score, what it counts and that it is for research, in a few sentences."""
  demo = f'DEMO MODELS. {result_json.DEMO_WARNING} ' if result.demo_models else ''
  attention = ATTENTION_IN_WORDS.format(
    map=result.thresholds.map, slice=result.thresholds.slice_probability
  )
  return (
    f'{demo}Corona score {result.corona_score_cm3:.1f} cm3, of it inside the lungs '
    f'{result.corona_score_in_lung_cm3:.1f} cm3; lungs '
    f'{result.lung_volume_cm3:.0f} cm3, of them '
    f'{100 * result.involved_lung_fraction:.1f} % involved. {attention} {_RESEARCH}'
  )


def comments(result: results.CaseResult) -> list[str]:
  """What a person changed, warnings, and how the CT was acquired."""
  edits = result.edits.in_words() if result.edits else ()
  acquired = result.acquisition.in_words() if result.acquisition else ''
  return [
    *(f'Edited by a person: {text}' for text in edits),
    *(
      f'Warning: {text}'
      for text in result.warnings
      if text != result_json.DEMO_WARNING  # In the summary.
    ),
    *([f'Acquisition: {acquired}'] if acquired else []),
  ]


# Numbers.


@dataclasses.dataclass
class _Groups:
  """Makes content items of groups: each refers to segment, map and algorithm."""

  source: source_lib.SourceSeries
  result: results.CaseResult
  segmentation: pydicom.Dataset
  parametric_map: pydicom.Dataset

  def made(
    self, group: measurement_groups.Group
  ) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The Measurement Group of TID 1411."""
    tracking_id, tracking_uid = identity.tracking(self.source, self.result, group.name)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
      tracking_identifier=sr.TrackingIdentifier(tracking_uid, tracking_id),
      referenced_segment=sr.ReferencedSegment(
        self.segmentation.SOPClassUID,
        self.segmentation.SOPInstanceUID,
        group.segment,
        source_series=sr.SourceSeriesForSegmentation(self.source.series_uid),
      ),
      finding_type=group.finding,
      finding_sites=_sites(group.site),
      measurements=[self._measurement(measure) for measure in group.measures],
      qualitative_evaluations=[
        sr.QualitativeEvaluation(question, answer)
        for question, answer in group.evaluations
      ],
    )

  def _measurement(self, measure: measurement_groups.Measure) -> sr.Measurement:
    return sr.Measurement(
      name=measure.quantity,
      value=float(measure.value),
      unit=measure.unit,
      # A child of every number: viewers read none without one.
      algorithm_id=self._algorithm(),
      derivation=measure.derivation,
      finding_sites=_sites(measure.site),
      method=measure.method,
      referenced_images=self._map() if measure.of_map else None,
    )

  def _algorithm(self) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
      identity.MODEL_NAME,
      self.result.software,
      parameters=[_models(self.result)],
    )

  def _map(self) -> list[sr.SourceImageForMeasurement]:
    return [
      sr.SourceImageForMeasurement(
        self.parametric_map.SOPClassUID, self.parametric_map.SOPInstanceUID
      )
    ]


def _sites(site: measurement_groups.Site | None) -> list[sr.FindingSite] | None:
  return [sr.FindingSite(site.place, site.laterality)] if site else None


def _models(result: results.CaseResult) -> str:
  """Models by the digests of their cards."""
  demo = 'DEMO MODELS; ' if result.demo_models else ''
  return demo + '; '.join(
    f'{model.name} {model.version}, SHA-256 of its card {model.card_sha256}'
    for model in result.models
  )


# Images.


def _image_library(source: source_lib.SourceSeries) -> sr.ContainerContentItem:
  """All images, and once for all what they share (TID 1600 to 1604)."""
  image = pydicom.Dataset()
  image.update(source.headers[0])
  # What frames share, is described as of one image: highdicom looks for it in theirs.
  image.add_new('SOPClassUID', 'UI', uid.CTImageStorage)
  shared = [
    item
    for item in sr.ImageLibraryEntryDescriptors(image)
    if item.ConceptNameCodeSequence[0].CodeValue not in _OF_ONE_IMAGE
  ]
  images = [
    sr.ImageContentItem(
      _SOURCE,
      item.ReferencedSOPClassUID,
      item.ReferencedSOPInstanceUID,
      item.get('ReferencedFrameNumber'),
      relationship_type=_CONTAINS,
    )
    for item in source.references()
  ]
  group = _container(codedict.codes.DCM.ImageLibraryGroup, [*shared, *images])
  return _container(codedict.codes.DCM.ImageLibrary, [group])


def _container(name: coding.Code, items: Sequence[Any]) -> sr.ContainerContentItem:
  container = sr.ContainerContentItem(name, relationship_type=_CONTAINS)
  container.ContentSequence = sr.ContentSequence(items)
  return container
