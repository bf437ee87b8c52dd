"""How models and their contexts are made, and the options that say so. Makes none."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rsd_cli.cli.options import one_of
from rsd_cli.engine.context import EVEN, FOUR, KV_TYPES, QUANTIZED
from rsd_cli.engine.llama import can_offload, devices
from rsd_cli.errors import UsageError
from rsd_cli.records import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rsd_cli.records import Role

ALL_LAYERS = -1

# Rows of one decode on a CPU: measured with Q4_K_M on AVX-512, 16 rows take 1.2 times as long as 8, and beyond 16
# each row costs what it costs there; seats beyond these wait their turn, so that the batches are full.
CPU_STREAMS = 16


@dataclass(frozen=True)
class Shape:
    """How models and contexts are made; `ctx` 0 takes the models' own up to `DEFAULT_CTX`.

    `gpu_layers` counts per role; a role that is not named takes all that the build can offload. `reproducible`
    leaves out what makes the same question's text depend on what was asked before it, and `exact` on what is written
    beside it.
    """

    ctx: int = 0
    n_seats: int = 1
    n_batch: int = 512
    threads: int = 0
    kv_type: str = "f16"
    gpu_layers: dict[Role, int] = field(default_factory=dict)
    reproducible: bool = False
    exact: bool = False

    @property
    def n_streams(self) -> int:
        """How many seats a model decodes together: all of them on a GPU. Exact writing takes fours, from eight on."""
        n = self.n_seats if can_offload() else min(self.n_seats, CPU_STREAMS)
        return max(EVEN, n + -n % FOUR) if self.exact else n

    @property
    def n_held(self) -> int:
        """How many texts memory is taken for: of seats that are parked as well, and of streams without a seat."""
        return max(self.n_seats, self.n_streams)

    def can_be_exact(self, roles: Iterable[Role]) -> bool:
        """Whether ggml's own CPU code computes these roles, and no quantized V cache needs flash attention."""
        on_cpu = not can_offload() or all(self.gpu_layers.get(role) == 0 for role in roles)
        by_library = any(device.name == "BLAS" for device in devices())  # takes the large decodes
        return on_cpu and not by_library and self.kv_type not in QUANTIZED

    def is_on_several_devices(self, roles: Iterable[Role]) -> bool:
        """Whether these roles' models lie on more than one GPU, or on one and on the CPU."""
        offloaded = {self.gpu_layers.get(role, ALL_LAYERS) != 0 for role in roles}
        gpus = [device for device in devices() if device.name != "CPU"]
        return can_offload() and True in offloaded and (len(gpus) > 1 or len(offloaded) > 1)

    @property
    def described(self) -> dict[str, Any]:
        """What records say of it; of an exact one not what the answers do not depend on."""
        seats = {"n_streams": self.n_streams}
        described = {
            key: value for key, value in asdict(self).items() if not (self.exact and key == "n_seats")
        }
        return described if self.exact else described | seats


def parse_layers(text: str) -> dict[Role, int]:
    """`--gpu-layers`: a number for all roles, or ROLE=N pairs separated by commas."""
    if not text:
        return {}
    if "=" not in text:
        return dict.fromkeys(ROLES, _layer_count(text))
    layers: dict[Role, int] = {}
    for pair in text.split(","):
        name, _, count = pair.partition("=")
        role = next((role for role in ROLES if role == name.strip()), None)
        if role is None:
            raise UsageError(f"--gpu-layers names the role {name!r}.", f"The roles are {', '.join(ROLES)}.")
        layers[role] = _layer_count(count)
    return layers


def _layer_count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise UsageError(
            f"--gpu-layers {text!r} is no number.", "Give a number, or pairs such as draft=99,target=20."
        ) from None
    if count < ALL_LAYERS:
        raise UsageError(f"--gpu-layers {count} is no number of layers.", "Use 0 or more, or -1 for all.")
    return count


def check_kv_type(name: str) -> str:
    """A KV cache type that llama.cpp has."""
    return one_of("--kv-type", name, KV_TYPES)
