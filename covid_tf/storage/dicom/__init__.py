"""A scored study as DICOM objects that lie on its CT (docs/dicom_objects.md).

They need the extra `clinic`, which is imported when the first object is made.
"""
