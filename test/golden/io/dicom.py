"""DICOM files of a few pixels with what a viewer shows of them: dicom.json.

    python test/golden/io/dicom.py test/golden/io/dicom.json

Files and brightness are pydicom's own (`apply_modality_lut`, `apply_windowing`), without any of our code.
"""
import base64
import io
import json
import sys

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

ROWS, COLUMNS = 5, 6


def film(values, stored, signed=False, kind="MONOCHROME2", syntax=ExplicitVRLittleEndian, **tags):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = syntax
    d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    d.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    d.SOPClassUID, d.SOPInstanceUID = d.file_meta.MediaStorageSOPClassUID, "1.2.3"
    d.PatientName, d.PatientID = "Canary^Name", "CANARY-ID"
    d.Rows, d.Columns, d.SamplesPerPixel = ROWS, COLUMNS, 1
    d.PhotometricInterpretation = kind
    d.BitsAllocated = 8 if values.dtype.itemsize == 1 else 16
    d.BitsStored, d.HighBit, d.PixelRepresentation = stored, stored - 1, int(signed)
    for name, value in tags.items():
        setattr(d, name, value)
    d.PixelData = values.tobytes()
    d["PixelData"].VR = "OB" if d.BitsAllocated == 8 else "OW"
    return d


def shown(d):
    """Brightness 0 … 1 of the window, as pydicom gives it."""
    values = apply_modality_lut(d.pixel_array, d)
    out = np.asarray(apply_windowing(values, d), dtype=np.float64)
    bits, signed = d.BitsStored, d.PixelRepresentation
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = float(d.get("RescaleSlope", 1)), float(d.get("RescaleIntercept", 0))
    low, high = low * slope + intercept, high * slope + intercept
    y = (out - low) / (high - low)
    return 1 - y if d.PhotometricInterpretation == "MONOCHROME1" else y


def written(d):
    file = io.BytesIO()
    pydicom.dcmwrite(file, d, enforce_file_format=True)
    return base64.b64encode(file.getvalue()).decode()


rng = np.random.default_rng(14)
twelve = rng.integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16)
hounsfield = rng.integers(-1024, 2000, (ROWS, COLUMNS), dtype=np.int16)
eight = rng.integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
cases = {
    "12 bits, a window": film(twelve, 12, WindowCenter=2000, WindowWidth=1500),
    "MONOCHROME1": film(twelve, 12, kind="MONOCHROME1", WindowCenter=2000, WindowWidth=1500),
    "implicit, two windows": film(twelve, 12, syntax=ImplicitVRLittleEndian, WindowCenter=[1000, 40], WindowWidth=[900, 80]),
    "signed, rescaled": film(hounsfield, 16, True, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=-600, WindowWidth=1500),
    "sigmoid": film(twelve, 12, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID"),
    "linear exact": film(twelve, 12, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="LINEAR_EXACT"),
    "8 bits": film(eight, 8, WindowCenter=100, WindowWidth=120),
}
films = [{"name": name, "file": written(d), "shown": np.round(shown(d), 9).ravel().tolist()} for name, d in cases.items()]
rle = film(twelve, 12, WindowCenter=2000, WindowWidth=1500)
rle.compress(RLELossless)
json.dump({"rows": ROWS, "columns": COLUMNS, "films": films, "rle": written(rle)}, open(sys.argv[1], "w"), indent=1)
