"""Which inputs make a better head: states of several layers, of draft and target, with and without facts of the text.

    python examples/head_inputs.py ROWS.jsonl --draft DRAFT.gguf --target TARGET.gguf --work FOLDER --limit 200

Rows are ProcessBench's, `{"id", "problem", "steps", "label"}`. Both models read every solution once, each step's last
token by itself; its state behind the final norm and behind some layers are kept in FOLDER, where a later run goes
on. Printed is the cross-validated AUC over problems of "this step is before the first error", for each set of inputs.
States are projected to their first principal components, since there are more values than steps.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsd_cli.decoding.prompts import MATHS
from rsd_cli.engine.context import Context, ContextOptions, Row
from rsd_cli.engine.llama import Model, _ggml
from rsd_cli.engine.templates import ChatTemplate, Message, Renderer
from rsd_cli.rewards.families import Solution
from rsd_cli.rewards.features import FEATURES
from rsd_cli.rewards.training import Examples, choose, fold_of

# isort: split
import llama_cpp.llama_cpp as C  # noqa: N812 - behind our own module, which prepares the environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPONENTS = 128
SHAPE_AT = 16  # bytes into a ggml_tensor: type and buffer come first


class LayeredContext(Context):
    """A context that keeps what some layers put out for the newest token, through llama.cpp's evaluation callback."""

    def __init__(self, model: Model, options: ContextOptions, layers: tuple[int, ...]) -> None:
        self.seen: dict[int, NDArray[np.float32]] = {}
        self._names = {f"l_out-{layer}".encode(): layer for layer in layers}
        self._library = _ggml("ggml-base")
        self._library.ggml_get_name.restype = ctypes.c_char_p
        self._library.ggml_get_name.argtypes = [ctypes.c_void_p]
        size_t = ctypes.c_size_t
        self._library.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, size_t, size_t]
        self._watch = C.ggml_backend_sched_eval_callback(self._look)
        super().__init__(model, options)

    def _params(self, options: ContextOptions) -> Any:  # noqa: ANN401 - as its parent
        params = super()._params(options)
        params.cb_eval = self._watch
        return params

    def _look(self, tensor: int, asks: bool, _data: int) -> bool:  # noqa: FBT001 - llama.cpp calls it
        layer = self._names.get(self._library.ggml_get_name(tensor))
        if layer is None:
            return not asks
        if not asks:
            width, n = (ctypes.c_int64 * 2).from_address(tensor + SHAPE_AT)
            values = np.empty(width, np.float32)
            start = (n - 1) * width * 4
            self._library.ggml_backend_tensor_get(tensor, values.ctypes.data, start, width * 4)
            self.seen[layer] = values
        return True


def states(context: LayeredContext, prompt: list[int], steps: list[str]) -> dict[str, NDArray[np.float32]]:
    """Arrays [steps, n_embd] by name: `last` behind the final norm, and a layer's output by its number."""
    rows: dict[str, list[NDArray[np.float32]]] = {"last": []}
    fresh, at = list(prompt), 0
    for step in steps:
        fresh += context.model.tokenize(step)
        for start in range(0, len(fresh) - 1, context.n_batch):
            part = fresh[start : min(start + context.n_batch, len(fresh) - 1)]
            context.decode([Row(0, at + start, part, output=False)])
        at += len(fresh)
        (out,) = context.decode([Row(0, at - 1, fresh[-1:], output=True)], hidden=True)
        rows["last"].append(context.hidden(out))
        for layer, values in context.seen.items():
            rows.setdefault(str(layer), []).append(values)
        fresh = []
    context.cut(0, 0)
    return {name: np.stack(values) for name, values in rows.items()}


def read_all(path: Path, rows: list[dict[str, Any]], folder: Path, layers: tuple[int, ...]) -> None:
    """Keep every row's states, unless they are there."""
    renderer = Renderer()
    context = LayeredContext(Model(path), ContextOptions(n_ctx=2048), layers)
    template = ChatTemplate(context.model, renderer)
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        place = folder / f"{row['id']}.npz"
        if not place.exists():
            prompt = template.encode([Message("system", MATHS), Message("user", row["problem"])])
            found = states(context, prompt, [step + "\n\n" for step in row["steps"]])
            np.savez(place.with_suffix(".part.npz"), **found)  # type: ignore[arg-type]  # names are ours
            place.with_suffix(".part.npz").replace(place)
    renderer.close()


def components(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first principal components of standardised columns."""
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)
    left, size, _ = np.linalg.svd(scaled.astype(np.float64), full_matrices=False)
    return np.asarray(left[:, :COMPONENTS] * size[:COMPONENTS])


def main() -> None:
    """Read what is missing, then compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", default="6,12,18", help="of the draft, beside its last")
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    layers = tuple(map(int, args.layers.split(",")))
    rows = [json.loads(line) for line in args.rows.open()][: args.limit]
    read_all(args.draft, rows, args.work / "draft", layers)
    read_all(args.target, rows, args.work / "target", ())
    known: dict[str, NDArray[np.float64]] = {}
    for role, names in (("draft", ("last", *map(str, layers))), ("target", ("last",))):
        for name in names:
            parts = [np.load(args.work / role / f"{row['id']}.npz")[name] for row in rows]
            known[f"{role} {name}"] = components(np.concatenate(parts))
    steps = [(row, i) for row in rows for i in range(len(row["steps"]))]
    known["text"] = np.array(
        [
            [
                rate(Solution(row["problem"], tuple(step + "\n\n" for step in row["steps"][: i + 1])))
                for rate in FEATURES.values()
            ]
            for row, i in steps
        ]
    )
    good = np.array([row["label"] < 0 or i < row["label"] for row, i in steps], np.float64)
    weight = np.array([1 / len(row["steps"]) for row, _ in steps])
    fold = np.array([fold_of(row["id"]) for row, _ in steps])
    deep = [f"draft {layer}" for layer in layers]
    sets: list[list[str]] = [
        ["text"],
        ["draft last"],
        *([name] for name in deep),
        ["draft last", *deep],
        ["target last"],
    ]
    sets += [[*states_of, "text"] for states_of in sets[1:]]
    sets += [["draft last", "target last"], ["draft last", "target last", "text"]]
    print(f"{len(steps):,} steps of {len(rows)} solutions, {good.mean():.0%} before the first error")
    for chosen in sets:
        inputs = np.hstack([known[name] for name in chosen])
        n_state = sum(known[name].shape[1] for name in chosen if name != "text")
        found = choose(Examples(inputs, good, weight * len(steps) / weight.sum(), fold, n_state))
        print(f"{' + '.join(chosen):55} AUC {found.auc:.3f}  {found.name}", flush=True)


if __name__ == "__main__":
    main()
