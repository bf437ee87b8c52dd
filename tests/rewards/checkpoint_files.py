"""Checkpoints in the exact published layouts, written without PyTorch, and a hub that serves them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import struct
import threading
import zipfile
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

COMMIT = "a" * 40
TYPES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "I64": "LongStorage"}


def as_bytes(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "I64": "<i8"}[dtype]).tobytes()


def safetensors(tensors: Mapping[str, np.ndarray], dtype: str = "BF16") -> bytes:
    """As transformers saves it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, values in tensors.items():
        data = as_bytes(values, dtype)
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class _Named:
    """Stands for a global of torch in a pickle."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Claimed:
    """Values, and what a pickle says of a tensor in them."""

    def __init__(
        self, values: np.ndarray, shape: tuple[Any, ...], stride: tuple[int, ...], offset: Any = 0
    ) -> None:
        self.values, self.shape, self.stride, self.offset = values, shape, stride, offset


def _claimed(values: np.ndarray | Claimed) -> Claimed:
    if isinstance(values, Claimed):
        return values
    return Claimed(values, values.shape, tuple(stride // values.itemsize for stride in values.strides))


class _Tensor:
    def __init__(self, key: str, claimed: Claimed, dtype: str) -> None:
        self.key, self.claimed, self.dtype = key, claimed, dtype


PYTHON_PICKLER: Any = vars(pickle)["_Pickler"]  # unlike the one in C, it can be taught other globals


class _Pickler(PYTHON_PICKLER):  # type: ignore[misc] # a class of the library that typeshed does not know
    dispatch: ClassVar[dict[Any, Any]] = dict(PYTHON_PICKLER.dispatch)

    def save_named(self, named: _Named) -> None:
        self.write(pickle.GLOBAL + f"{named.module}\n{named.name}\n".encode())

    dispatch[_Named] = save_named

    def save_tensor(self, tensor: _Tensor) -> None:
        """As torch has it: _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())."""
        self.save(_Named("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        pid = ("storage", _Named("torch", TYPES[tensor.dtype]), tensor.key, "cpu", tensor.claimed.values.size)
        self.save(pid)
        self.write(pickle.BINPERSID)
        self.save(tensor.claimed.offset)
        self.save(tensor.claimed.shape)
        self.save(tensor.claimed.stride)
        self.save(False)
        self.save(OrderedDict())
        self.write(pickle.TUPLE + pickle.REDUCE)

    dispatch[_Tensor] = save_tensor


def pytorch_bin(tensors: Mapping[str, np.ndarray | Claimed], dtype: str = "BF16", **more: Any) -> bytes:
    """As torch.save writes it since 1.6: an uncompressed zip of data.pkl and one member a storage."""
    claimed = [_claimed(values) for values in tensors.values()]
    table = {name: _Tensor(str(i), claimed[i], dtype) for i, name in enumerate(tensors)}
    out = io.BytesIO()
    _Pickler(out, 2).dump(table | more)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("pytorch_model/data.pkl", out.getvalue())
        for i, each in enumerate(claimed):
            file.writestr(f"pytorch_model/data/{i}", as_bytes(each.values, dtype))
        file.writestr("pytorch_model/version", "3\n")
    return archive.getvalue()


def write(directory: Path, files: Mapping[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def sharded(files: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, bytes]:
    """Shards of safetensors with their index."""
    places = {tensor: name for name, tensors in files.items() for tensor in tensors}
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    return {name: safetensors(tensors) for name, tensors in files.items()} | {
        "model.safetensors.index.json": index
    }


class Hub:
    """What it serves, what it lists and can't serve, how many bytes of files it sent, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.missing: set[str] = set()
        self.sent = 0
        self.asked: list[str] = []
        self.url = ""


@contextlib.contextmanager
def serving(repo: str) -> Iterator[Hub]:
    """The hub's endpoints that a model's listing and its files need."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(path)
            if path.startswith(f"/api/models/{repo}"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in hub.files.items()]
                self.answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
                return
            data = hub.files.get(path.removeprefix(f"/{repo}/resolve/{COMMIT}/"))
            if data is None or path.rsplit("/", 1)[-1] in hub.missing:
                self.answer(404, b"")
                return
            if "Range" not in self.headers:
                hub.sent += len(data)
                self.answer(200, data)
                return
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            part = data[int(first) : int(last or len(data)) + 1]
            hub.sent += len(part)
            self.answer(206, part, f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")

        def do_HEAD(self) -> None:
            data = hub.files.get(self.path.split("?")[0].removeprefix(f"/{repo}/resolve/{COMMIT}/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
            self.end_headers()

        def answer(self, code: int, body: bytes, content_range: str = "") -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
