"""What a file is, from its first bytes: so that an error can say what came in the place of what was expected."""

from __future__ import annotations

import json

LFS = "a git-lfs pointer, not the file itself"
ANNEX = "a git-annex pointer, not the file itself"
HTML = "a web page (HTML)"
XML = "an XML file"
JSON = "a JSON file"
INDEX = "the index of a model in several files (JSON)"
GZIP = "a gzip file"
ZIP = "a zip archive"
NPZ = "NumPy's .npz"
NPY = "NumPy's .npy"
TORCH = "a file that torch.save wrote (.pt, .pth, .bin)"
PICKLE = "a Python pickle"
KERAS = "a Keras model (.keras)"
HDF5 = "an HDF5 file (.h5, Keras's weights, say)"
ONNX = "an ONNX model"
TENSORFLOW = "a TensorFlow SavedModel (.pb)"
TFLITE = "a TensorFlow Lite model"
GGUF = "a GGUF model (llama.cpp)"
SAFETENSORS = "a safetensors file"
IDX = "an idx file"
UTF16 = "text in UTF-16"
EMPTY = "an empty file"
ZEROS = "nothing but zeros, as a broken download leaves it"

ADVICE = {
    LFS: "`git lfs pull` fetches the file itself",
    ANNEX: "`git annex get` fetches the file itself",
    HTML: "download the file itself, not the page about it",
    XML: "where a server sends an error in its place, get the file again",
    GZIP: "unpack it first",
    ZIP: "unpack it first",
    UTF16: "save it as UTF-8",
}
# What can be told from the beginning alone. (Those of ordinary letters are long, or a text might begin like that.)
MAGIC = {
    b"version https://git-lfs.github.com/spec/": LFS,
    b"/annex/objects/": ANNEX,
    b"\x1f\x8b": GZIP,
    b"\x93NUMPY": NPY,
    b"\x89HDF\r\n\x1a\n": HDF5,
    b"GGUF": GGUF,
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": TORCH,  # before 1.6: the pickle of a number of its own comes first
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"BZh91AY&SY": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3\0": "an SQLite file",
    b"MATLAB 5.0 MAT-file": "a MATLAB file (.mat)",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF-": "a PDF document",
    b"\xff\xfe": UTF16,
    b"\xfe\xff": UTF16,
}
# The first field of a protobuf, the version of the format, and then the fields that may follow it.
PROTOBUF = {ONNX: (range(3, 64), b"\x12\x1a\x22\x28\x32\x3a\x42\x72"), TENSORFLOW: (range(1, 2), b"\x12")}


def kind_of(content: bytes) -> str | None:
    """What a file with this content is, as a sentence would name it; None for what is not known.

    content : the whole file, or its first few thousand bytes (of JSON and of zeros the whole, to be sure)
    Nothing is unpacked, and no pickle is opened.
    """
    if not content:
        return EMPTY
    if not content.strip(b"\0"):
        return ZEROS
    start = content[:2048]
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return _zipped(start) if kind == ZIP else kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"<", b"{", b"["):
        return _marked_up(content, text.lower())
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return SAFETENSORS
    if start[4:8] == b"TFL3":
        return TFLITE
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[:3] in (b"\0\0\x08", b"\0\0\x0b", b"\0\0\x0c", b"\0\0\x0d", b"\0\0\x0e"):
        return IDX
    for kind, (versions, fields) in PROTOBUF.items():
        if start[0] == 8 and len(start) > 2 and start[1] in versions and start[2] in fields:
            return kind
    return None


def _zipped(start: bytes) -> str:
    """Which zip archive: what is in it can be told from the name of its first file."""
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    if name.endswith(b"/data.pkl") or (b"/" in name and b"/data.pkl" in start) or b"constants.pkl" in start:
        return TORCH
    if name.endswith(b".npy"):
        return NPZ
    if name in (b"metadata.json", b"config.json", b"model.weights.h5"):
        return KERAS
    return ZIP


def _marked_up(content: bytes, text: bytes) -> str | None:
    if text[:1] == b"<":
        if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text[:1024]:
            return HTML
        return XML if text.startswith(b"<?xml") else None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return INDEX if isinstance(value, dict) and isinstance(value.get("weight_map"), dict) else JSON
