"""The images and answers with which a bundle tests itself; docs/bundle.md specifies their files."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.errors import BundleError

if TYPE_CHECKING:
    from samdeploy.bundle import Bundle

# Of the range: what FP32 engines may differ by, so that one which always answers the same would pass.
_SAME_ANSWER = 1e-4


def read_golden(bundle: Bundle) -> tuple[UInt8Array, Float32Array]:
    """The images and answers a bundle tests itself with: uint8 [n, H, W, 3] RGB and float32 [n, K].

    Raises:
        BundleError: they are missing, damaged, or do not fit the model.
    """
    height, width = bundle.spec.preprocessing.height, bundle.spec.preprocessing.width
    images = read_array(bundle, "golden_images", np.dtype(np.uint8), (height, width, 3))
    logits = read_array(bundle, "golden_logits", np.dtype(np.float32), (len(bundle.spec.classes),))
    if len(images) != len(logits) or not len(images):
        raise BundleError(f"bundle {bundle.root}: {len(images)} golden images, {len(logits)} golden answers found")
    if not np.isfinite(logits).all():
        raise BundleError(f"bundle {bundle.root}: golden answers are not finite; export it again")
    return images, logits


def proves_nothing(images: UInt8Array, logits: Float32Array) -> str:
    """Why golden images cannot tell an engine from another one; "" where they can.

    Args:
        images, logits: uint8 [n, H, W, 3] and float32 [n, K], from `read_golden`.
    """
    if (images == images[:, :1, :1]).all():
        return f"each of the {len(images)} golden images has a single colour"
    if len(images) > 1 and (images == images[0]).all():
        return f"all {len(images)} golden images are equal"
    if len(images) > 1 and np.abs(logits - logits[0]).max() <= _SAME_ANSWER * np.ptp(logits[0]):
        return f"all {len(images)} golden answers are equal"
    return ""


def read_array(bundle: Bundle, role: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The .npy file with `role`: `dtype` [n, *shape], the caller's own.

    Raises:
        BundleError: it is missing, damaged, or of another type or shape.
    """
    file = bundle.find(role)
    if file is None:
        raise BundleError(f"bundle {bundle.root}: no file with role {role!r}; export it again")
    name = f"bundle {bundle.root}: {file.path!r}"
    data = io.BytesIO(bundle.read(file))
    try:
        found_shape, is_fortran, found_dtype = _npy_header(data)
    except Exception as error:  # numpy's parser fails in many ways on a header that is no header
        raise BundleError(f"{name} is no .npy array ({error})") from None
    # Everything is compared before numpy reserves memory for what the header promises.
    if found_dtype != dtype or found_shape[1:] != shape or len(found_shape) != len(shape) + 1 or is_fortran:
        order = " in Fortran order" if is_fortran else ""
        wanted = f"{dtype} [n, {', '.join(map(str, shape))}]"
        raise BundleError(f"{name} is {found_dtype} {list(found_shape)}{order}, expected {wanted}")
    content = data.read()
    expected = math.prod(found_shape) * dtype.itemsize
    if len(content) != expected:
        raise BundleError(f"{name} has {len(content)} bytes of numbers, its shape asks for {expected}")
    return np.frombuffer(content, dtype).reshape(found_shape).copy()


def _npy_header(data: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(data)
    if version != (1, 0):  # the later ones are for names of fields, which our arrays have not
        raise ValueError(f"version {version[0]}.{version[1]} of the format found, 1.0 expected")
    return np.lib.format.read_array_header_1_0(data)
