"""Packs as MDS shards (mosaicml-streaming), in the columns that ProLong's trainer reads.

    input_ids  uint32[T]     the tokens of a pack
    indices    uint32[n, 2]  begin and end of each of its sequences
    length     int           T
    mask       uint8[T]      1 on targets
    weights    float32[T]    loss weights of the labels; ProLong's trainer does not read them

A shard is, in little-endian 32-bit numbers: how many samples, the offset of each and of the end, then the configuration as
JSON, then the samples; a sample is the sizes of its columns of varying size, then the columns in the order of their names.
`index.json` lists the shards. Written here, because the package brings a hundred others along.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longalign_data.errors import BuildError
from longalign_data.shards.files import whole_file, write_json, writing
from longalign_data.shards.folder import BuildFolder
from longalign_data.shards.parquet import iter_batches

SHARD_BYTES = 64 << 20
COLUMNS: dict[str, tuple[str, int | None]] = {
    "indices": ("ndarray:uint32", None),
    "input_ids": ("ndarray:uint32", None),
    "length": ("int", 8),
    "mask": ("ndarray:uint8", None),
    "weights": ("ndarray:float32", None),
}
"""The encoding of each column, and its size in bytes when that is fixed; in the order of the format, by name."""


def export_mds(build: BuildFolder, out: Path) -> tuple[Path, int]:
    """Writes the packs in the order of the plan to `out`, the index last. Returns the index and the number of packs.
    Raises BuildError when the build holds none."""
    shards = build.shards("packs")
    if not shards:
        raise BuildError(f"{build.root}: holds no packs; run: longalign build RECIPE")
    writer = _Writer(out)
    for batch in iter_batches(shards, columns=["input_ids", "loss_weights", "cu_seqlens"]):
        for index in range(batch.num_rows):
            ids, weights, borders = (batch.column(name)[index].values.to_numpy() for name in batch.schema.names)
            writer.add(_sample(ids, weights, borders))
    return writer.finish()


def _sample(
    ids: npt.NDArray[np.int32], weights: npt.NDArray[np.float64], borders: npt.NDArray[np.int32]
) -> dict[str, bytes]:
    return {
        "indices": _array(np.stack((borders[:-1], borders[1:]), axis=1).astype("<u4")),
        "input_ids": _array(ids.astype("<u4")),
        "length": np.asarray(len(ids), "<i8").tobytes(),
        "mask": _array((weights > 0).astype("u1")),
        "weights": _array(weights.astype("<f4")),
    }


def _array(values: npt.NDArray[Any]) -> bytes:
    """One byte with the number of axes and the width of the lengths, the lengths, the values."""
    code, kind = next(
        (code, kind) for code, kind in enumerate(("u1", "<u2", "<u4")) if max(values.shape) < 256 ** (1 << code)
    )
    return bytes([values.ndim << 2 | code]) + np.asarray(values.shape, kind).tobytes() + values.tobytes()


class _Writer:
    def __init__(self, out: Path) -> None:
        self._out = out
        self._samples: list[bytes] = []
        self._size = 0
        self._shards: list[dict[str, Any]] = []
        self._count = 0
        self._config: dict[str, Any] = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": SHARD_BYTES,
            "column_names": list(COLUMNS),
            "column_encodings": [encoding for encoding, _ in COLUMNS.values()],
            "column_sizes": [size for _, size in COLUMNS.values()],
        }
        # A reader of an earlier export must not take its index for one of the new shards.
        with writing(out):
            (out / "index.json").unlink(missing_ok=True)

    def add(self, sample: dict[str, bytes]) -> None:
        sizes = [len(sample[name]) for name, (_, size) in COLUMNS.items() if size is None]
        data = np.asarray(sizes, "<u4").tobytes() + b"".join(sample[name] for name in COLUMNS)
        if self._samples and self._size + len(data) > SHARD_BYTES:
            self._close()
        self._samples.append(data)
        self._size += len(data)

    def finish(self) -> tuple[Path, int]:
        self._close()
        index = self._out / "index.json"
        write_json(index, {"shards": self._shards, "version": 2})
        return index, self._count

    def _close(self) -> None:
        config = json.dumps(self._config, sort_keys=True).encode()
        head = 4 + 4 * (len(self._samples) + 1) + len(config)
        offsets = head + np.cumsum([0, *map(len, self._samples)])
        data = np.asarray([len(self._samples), *offsets], "<u4").tobytes() + config + b"".join(self._samples)
        name = f"shard.{len(self._shards):05d}.mds"
        with whole_file(self._out / name) as temporary:
            temporary.write_bytes(data)
        raw = {"basename": name, "bytes": len(data), "hashes": {}}
        self._shards.append({**self._config, "raw_data": raw, "zip_data": None, "samples": len(self._samples)})
        self._count += len(self._samples)
        self._samples, self._size = [], 0
