"""Bundles whose manifest is wrong, or whose files are not those that it states."""

from __future__ import annotations

from pathlib import Path

from samdeploy.bundle.names import MANIFEST
from tests.hostile.damage import (
    Damage,
    answered,
    calibrated,
    content,
    edit,
    folder_instead,
    linked,
    measured,
    path_of_graph,
    pipe,
    rejecting,
    swapped,
    text,
    whole,
)
from tests.hostile.statuses import BAD_MANIFEST, CHANGED, NEWER, NO_BUNDLE, UNSAFE_PATH

DEVELOPMENT = "a development version wrote it; make it again from its run: samdeploy export RUN"
# name -> (damage, status of C++, text of C++, text of Python)
MANIFESTS: dict[str, tuple[Damage, int, str, str]] = {
    "path climbs": (path_of_graph("../outside"), UNSAFE_PATH, "leaves the folder", "leaves the folder"),
    "path climbs later": (path_of_graph("graphs/../../x"), UNSAFE_PATH, "leaves the folder", "leaves the folder"),
    "path is absolute": (path_of_graph("/etc/passwd"), UNSAFE_PATH, "leaves the folder", "leaves the folder"),
    "path with two slashes": (path_of_graph("graphs//fp32.onnx"), UNSAFE_PATH, "not plain", "not plain"),
    "path with a dot": (path_of_graph("./graphs/fp32.onnx"), UNSAFE_PATH, "not plain", "not plain"),
    "path with a slash at its end": (path_of_graph("graphs/fp32.onnx/"), UNSAFE_PATH, "not plain", "not plain"),
    "path with a backslash": (path_of_graph("graphs\\fp32.onnx"), UNSAFE_PATH, "not plain", "not plain"),
    "path with a NUL": (path_of_graph("graphs/fp32.onnx\0.txt"), UNSAFE_PATH, "not plain", "not plain"),
    "path is empty": (path_of_graph(""), UNSAFE_PATH, "not plain", "not plain"),
    "path is the folder": (path_of_graph("."), UNSAFE_PATH, "not plain", "not plain"),
    "path through a file": (path_of_graph("weights.safetensors/x"), NO_BUNDLE, "is missing", "is missing"),
    "file is missing": (path_of_graph("none.onnx"), NO_BUNDLE, "is missing", "is missing"),
    "symbolic link": (linked("graphs/fp32.onnx", Path.symlink_to), UNSAFE_PATH, "symbolic link", "symbolic link"),
    "linked folder": (linked("graphs", Path.symlink_to), UNSAFE_PATH, "symbolic link", "symbolic link"),
    "hard link": (linked("graphs/fp32.onnx", Path.hardlink_to), UNSAFE_PATH, "2 hard links", "2 hard links"),
    "linked manifest": (linked(MANIFEST, Path.symlink_to), UNSAFE_PATH, "symbolic link", "symbolic link"),
    "pipe": (pipe, UNSAFE_PATH, "not a plain file", "not a plain file"),
    "folder for a file": (folder_instead, UNSAFE_PATH, "not a plain file", "not a plain file"),
    "wrong hash": (content("graphs/fp32.onnx", lambda b: b[:-1] + b"?"), CHANGED, "has SHA-256", "has SHA-256"),
    "truncated": (content("graphs/fp32.onnx", lambda b: b[:-1]), CHANGED, "has 14 bytes", "has 14 bytes"),
    "longer": (content("golden/logits.npy", lambda b: b + b"x"), CHANGED, "truncated or replaced", "or replaced"),
    "swapped files": (swapped, CHANGED, "has SHA-256", "has SHA-256"),
    "length below zero": (
        edit(lambda v: v["files"][0].update(bytes=-15)), CHANGED, "the manifest states", "the manifest states",
    ),
    "length of 8 EiB": (
        edit(lambda v: v["files"][0].update(bytes=2**63 - 1)), CHANGED, "states 9223372036854775807", "states 92233720",
    ),
    "deep nesting": (
        text('"provenance": {', '"deep": ' + "[" * 100_000 + "]" * 100_000 + ',"provenance": {'),
        BAD_MANIFEST, "deeper than 32", "not valid JSON",
    ),
    "nested in an option": (text('"variant"', '{"a": 1}'), BAD_MANIFEST, "'options' must map", "'options' must map"),
    "repeated key": (
        text('"arch"', '"options": {}, "arch"'), BAD_MANIFEST, "'options' stands twice", "'options' stands twice",
    ),
    "repeated key, escaped": (
        text('"version"', '"form\\u0061t": 1, "version"'), BAD_MANIFEST, "'format' stands", "'format' stands",
    ),
    "unknown keys": (
        edit(lambda v: v["files"][1].update(note="x", url="y")),
        BAD_MANIFEST, "files[1]: unknown key 'note'; files[1]: unknown key 'url'", "files[1]: unknown key 'note'",
    ),
    "missing key": (
        edit(lambda v: v["model"].pop("options")), BAD_MANIFEST, "'options' is missing", "'options' is missing",
    ),
    "mistyped value": (
        edit(lambda v: v["preprocessing"].update(height="4")),
        BAD_MANIFEST, "'height' must be an integer, text '4' found", "'height' must be an integer",
    ),
    "number for an integer": (
        edit(lambda v: v["preprocessing"].update(height=4.0)), BAD_MANIFEST, "must be an integer", "must be an integer",
    ),
    "boolean for an integer": (
        edit(lambda v: v["data"].update(split_seed=True)), BAD_MANIFEST, "must be an integer", "must be an integer",
    ),
    "NaN": (text("0.1", "NaN"), BAD_MANIFEST, "not valid JSON", "NaN is no JSON"),
    "number too large": (text("0.1", "1e999"), BAD_MANIFEST, "not valid JSON", "is too large"),
    "integer of 65 bits": (text(": 7", ": 18446744073709551617"), BAD_MANIFEST, "fit 64 bits", "fit 64 bits"),
    "integer of 64 bits": (text(": 7", ": 9223372036854775808"), BAD_MANIFEST, "fit 64 bits", "fit 64 bits"),
    "huge integer for a number": (text("0.1", "9" * 400), BAD_MANIFEST, "not valid JSON", "fit 64 bits"),
    "byte order mark": (whole(lambda b: b"\xef\xbb\xbf" + b), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "UTF-16": (whole(lambda b: b.decode().encode("utf-16")), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "no UTF-8": (text("Löwe", b"L\xf6we"), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "half a surrogate": (text("Löwe", "\\ud800"), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "NUL at the end": (whole(lambda b: b + b"\0"), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "two values": (whole(lambda b: b + b"{}"), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "cut": (whole(lambda b: b[:-20]), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "empty": (whole(lambda b: b""), BAD_MANIFEST, "not valid JSON", "is empty; copy it"),
    "comment": (text("{", "{ // no JSON\n"), BAD_MANIFEST, "not valid JSON", "not valid JSON"),
    "list": (whole(lambda b: b"[]"), BAD_MANIFEST, "an object was expected", "an object was expected"),
    "another format": (
        edit(lambda v: v.update(format="other")), BAD_MANIFEST, "'samdeploy-bundle' expected", "format 'other' found",
    ),
    "newer version": (
        edit(lambda v: v.update(version=2, nobody_knows=1)), NEWER, "format version 2", "format version 2",
    ),
    "version true": (edit(lambda v: v.update(version=True)), BAD_MANIFEST, "version boolean true", "version True"),
    "measured: not a percentage": (
        edit(lambda v: v.update(measured=measured(top1=101))), BAD_MANIFEST, "val: top1 must be", "val: top1 101",
    ),
    "measured: no hash": (
        edit(lambda v: v.update(measured=measured(images_sha256=""))),
        BAD_MANIFEST, "val: images_sha256 must be", "val: images_sha256 ''",
    ),
    "measured: null": (edit(lambda v: v.update(measured=None)), BAD_MANIFEST, "'measured' must be", "'measured' must"),
    "measured: without a key": (
        edit(lambda v: v.update(measured={"val": {}, "test": None})), BAD_MANIFEST, "'top1' is missing", "'top1' is",
    ),
    "temperature of 0": (
        calibrated(temperature=0), BAD_MANIFEST, "temperature must be above 0", "temperature 0 found, above 0",
    ),
    "temperature below 0": (
        calibrated(temperature=-1.5), BAD_MANIFEST, "temperature must be above 0", "temperature -1.5 found",
    ),
    "temperature is no number": (
        calibrated(temperature=float("nan")), BAD_MANIFEST, "not valid JSON", "NaN is no JSON",
    ),
    "temperature is text": (
        calibrated(temperature="1"), BAD_MANIFEST, "'temperature' must be a number", "'temperature' must be a number",
    ),
    "calibrated on no image": (
        calibrated(images=0), BAD_MANIFEST, "images must be at least 1", "images 0 found, at least 1",
    ),
    "likelihood below 0": (
        calibrated(nll_after=-0.1), BAD_MANIFEST, "nll_after must be at least 0", "nll_after -0.1 found, at least 0",
    ),
    "calibration: null": (
        edit(lambda v: v.update(calibration=None)), BAD_MANIFEST, "'calibration' must be", "'calibration' must be",
    ),
    "calibration: another key": (
        calibrated(bias=1), BAD_MANIFEST, "calibration: unknown key 'bias'", "calibration: unknown key 'bias'",
    ),
    "threshold above 1": (
        rejecting(threshold=1.01), BAD_MANIFEST, "threshold must be from 0 to 1", "threshold 1.01 found, at most 1",
    ),
    "threshold below 0": (
        rejecting(threshold=-0.5), BAD_MANIFEST, "threshold must be from 0 to 1", "threshold -0.5 found, at least 0",
    ),
    "error of 0 wanted": (
        rejecting(wanted_error=0), BAD_MANIFEST, "wanted_error must be above 0", "wanted_error 0 found, above 0",
    ),
    "coverage above 100": (
        rejecting(coverage=101), BAD_MANIFEST, "coverage must be from 0 to 100", "coverage 101 found, at most 100",
    ),
    "rejection: without a key": (
        edit(lambda v: v.update(rejection={"threshold": 1})), BAD_MANIFEST, "'bound' is missing", "'bound' is missing",
    ),
    "answers of too few classes": (
        answered(labels=[10]), BAD_MANIFEST, "'labels' must be a list of 2 integers", "labels has 1 numbers for 2",
    ),
    "half an answer": (
        answered(labels=[6.5, 3.5]), BAD_MANIFEST, "'labels' must be a list of 2 integers", "'labels' must be a list",
    ),
    "fewer answers than none": (
        answered(labels=[11, -1]), BAD_MANIFEST, "integers from 0", "answered: a count is below 0",
    ),
    "answers of two numbers": (
        answered(labels=[7, 4]), BAD_MANIFEST, "the same number of images", "the same number above 0",
    ),
    "nine tenths": (
        answered(confidence=[1] * 9 + [1, 0]), BAD_MANIFEST, "a list of 10 integers", "11 found, 10 numbers expected",
    ),
    "no classes": (edit(lambda v: v["model"].update(classes=[])), BAD_MANIFEST, "no classes", "no classes"),
    "one file twice": (
        edit(lambda v: v["files"].append(v["files"][0])), BAD_MANIFEST, "fp32.onnx' twice", "fp32.onnx' twice",
    ),
    "unknown role": (edit(lambda v: v["files"][0].update(role="code")), BAD_MANIFEST, "role 'code'", "role 'code'"),
    "unknown precision": (
        edit(lambda v: v["files"][0].update(precision="fp64")), BAD_MANIFEST, "precision 'fp64'", "precision 'fp64'",
    ),
    "hash in capitals": (
        edit(lambda v: v["files"][0].update(sha256=v["files"][0]["sha256"].upper())),
        BAD_MANIFEST, "64 lower-case hexadecimal digits", "64 lower-case hexadecimal digits",
    ),
    "another input": (
        edit(lambda v: v["input"].update(shape=["N", 3, 4, 5])), BAD_MANIFEST, "ask for image uint8", "ask for",
    ),
    "another output": (
        edit(lambda v: v["output"].update(dtype="float16")), BAD_MANIFEST, "ask for logits float32 [N, 2]", "ask for",
    ),
    "another resize": (
        edit(lambda v: v["preprocessing"].update(resize="nearest")), BAD_MANIFEST, "resize 'nearest'", "resize 'near",
    ),
    "the short name of a resize": (
        edit(lambda v: v["preprocessing"].update(resize="bicubic")), BAD_MANIFEST, "resize 'bicubic'", "resize 'bicub",
    ),
    "another crop": (
        edit(lambda v: v["preprocessing"].update(crop="half-up")), BAD_MANIFEST, "crop 'half-up'", "crop 'half-up'",
    ),
    "crop is null": (
        edit(lambda v: v["preprocessing"].update(crop=None)), BAD_MANIFEST, "'crop' must be", "'crop' must be",
    ),
    "without a crop": (
        edit(lambda v: v["preprocessing"].pop("crop")), BAD_MANIFEST, DEVELOPMENT, DEVELOPMENT,
    ),
    "with a gate": (
        edit(lambda v: v["model"].update(gate=v["model"].pop("options")["gate"])),
        BAD_MANIFEST, DEVELOPMENT, DEVELOPMENT,
    ),
    "without a license": (
        edit(lambda v: v["model"].pop("license")), BAD_MANIFEST, "'license' is missing", "'license' is missing",
    ),
    "license is no text": (
        edit(lambda v: v["model"].update(license=["MIT"])), BAD_MANIFEST, "'license' must be", "'license' must be",
    ),
    "crop larger than the image": (
        edit(lambda v: v["preprocessing"].update(fit="center_crop", resize_short=3)),
        BAD_MANIFEST, "resize_short 3 is smaller", "resize_short 3 is smaller",
    ),
    "NUL in a class's name": (
        edit(lambda v: v["model"].update(classes=["cat", "dog\0.exe"])),
        BAD_MANIFEST, "a class's name holds U+0000", "a class's name holds U+0000",
    ),
    "side of 65537 pixels": (
        edit(lambda v: (v["preprocessing"].update(height=65537), v["input"].update(shape=["N", 65537, 5, 3]))),
        BAD_MANIFEST, "65536", "at most 65536",
    ),
    "zero deviation": (
        edit(lambda v: v["preprocessing"].update(std=[1, 0, 1])), BAD_MANIFEST, "must be above 0", "must be above 0",
    ),
}  # fmt: skip
