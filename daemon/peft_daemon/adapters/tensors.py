"""The weights of an adapter: a safetensors file as named, typed blocks of bytes.

The safetensors library reads the header; this module only adds bfloat16, which numpy does not have. Accepts
float32, float16 and bfloat16 and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peft_core.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DTYPES = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class Tensor:
    """One tensor as stored: safetensors' name of the type, shape, and little-endian bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray

    def to_float32(self) -> NDArray[np.float32]:
        """The values, exactly: every accepted type is a subset of float32."""
        import numpy as np  # noqa: PLC0415  (the daemon's request path must not load it)

        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            wide = np.frombuffer(self.data, dtype="<u2").astype("<u4") << np.uint32(16)
            values = wide.view("<f4")
        else:
            values = np.frombuffer(self.data, dtype="<f4" if self.dtype == "F32" else "<f2").astype("<f4")
        return values.reshape(self.shape)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; raises InvalidInput for a damaged file or another number type."""
    import safetensors  # noqa: PLC0415  (the daemon's request path must not load it)

    try:
        entries = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidInput(
            f"{path.name} is not a whole safetensors file", why=str(error), fix="Save the adapter again with PEFT"
        ) from None
    tensors: dict[str, Tensor] = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise InvalidInput(
                f"tensor '{name}' has the type {entry['dtype']}",
                why=f"adapters are stored as {', '.join(sorted(DTYPES))}",
                fix="Save the adapter in one of these",
            )
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), entry["data"])
    return tensors
