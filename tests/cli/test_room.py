"""Whether models fit: into the machine's memory, or into that of GPUs that stand in for hardware."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from rsd_cli.cli import prm
from rsd_cli.cli.room import SEATS, check_memory, with_seats
from rsd_cli.cli.shape import Shape
from rsd_cli.cli.warm import FoundModel
from rsd_cli.engine.context import Context, ContextOptions, Row
from rsd_cli.engine.jobs import SNAPSHOTS
from rsd_cli.engine.llama import Device
from rsd_cli.errors import ResourceError
from rsd_cli.registry.memory import needed_by_place, needed_memory, plenty
from rsd_cli.registry.names import shard_names
from tests.cli.command import ended

if TYPE_CHECKING:
    from rsd_cli.records import Role

GB = 10**9


@pytest.fixture
def models(tiny):
    """A draft and a target of their own; each needs 200 MB and a little by the estimate."""
    return {
        role: FoundModel(role, path, None, None)
        for role, path in {"draft": tiny(seed=1), "target": tiny("other", seed=2)}.items()
    }


@pytest.fixture
def machine(monkeypatch):
    """machine(memory, gpu, offloads): what is free there; a build that can offload may be without a GPU."""

    def make(memory, gpu=None, offloads=True):
        there = [Device("CPU", "a CPU", 64 * GB, 64 * GB), Device("BLAS", "a library", 0, 0)]
        there += [] if gpu is None else [Device("CUDA0", "a GPU", gpu, 24 * GB)]
        monkeypatch.setattr("rsd_cli.engine.llama.can_offload", lambda: offloads)
        monkeypatch.setattr("rsd_cli.engine.llama.devices", lambda: there)
        monkeypatch.setattr("rsd_cli.registry.memory.available_memory", lambda: memory)

    return make


FITS: dict[str, tuple[tuple[Any, ...], dict[Role, int]]] = {
    "all on the GPU": ((1, GB), {}),
    "all in memory": ((GB, 1), {"draft": 0, "target": 0}),
    "one in each": ((0.3 * GB, 0.3 * GB), {"draft": 0}),
    "half of each": ((0.3 * GB, 0.3 * GB), {"draft": 1, "target": 1}),
    "more layers than there are": ((1, GB), {"draft": 99, "target": 99}),
    "a Mac, whose GPU has no memory of its own": ((None, 1), {}),
    "no GPU in the machine": ((GB, None), {}),
    "a build for the CPU": ((GB, 1, False), {}),
}
LACKS: dict[str, tuple[tuple[Any, ...], dict[Role, int], str]] = {
    "memory, in a build for the CPU": ((0.3 * GB, GB, False), {}, "0.4 GB of memory"),
    "memory, without a GPU in the machine": ((0.3 * GB,), {}, "0.4 GB of memory"),
    "memory, with no layers on the GPU": ((0.3 * GB, GB), {"draft": 0, "target": 0}, "0.4 GB of memory"),
    "memory for the one that is there": ((0.1 * GB, GB), {"draft": 0}, "0.2 GB of memory"),
    "memory of the GPU": ((64 * GB, 0.3 * GB), {}, "0.4 GB of GPU memory"),
    "memory of the GPU for half of each": ((64 * GB, 0.1 * GB), {"draft": 1, "target": 1}, "0.2 GB of GPU"),
}


@pytest.mark.parametrize("case", FITS)
def test_what_fits_where_it_goes_is_not_refused(case, machine, models):
    there, layers = FITS[case]
    machine(*there)
    check_memory(models, Shape(gpu_layers=layers))


@pytest.mark.parametrize("case", LACKS)
def test_what_does_not_fit_there_is_refused(case, machine, models):
    there, layers, words = LACKS[case]
    machine(*there)
    with pytest.raises(ResourceError, match=words) as refused:
        check_memory(models, Shape(gpu_layers=layers))
    assert ("--gpu-layers" in refused.value.hint) == ("GPU" in words)


def test_a_gpu_has_as_many_seats_as_it_has_room_for(machine, models):
    machine(64 * GB, GB)
    assert with_seats(models, Shape(), SEATS, 1).n_seats == SEATS[0]
    machine(64 * GB, 0.41 * GB)
    assert 1 <= with_seats(models, Shape(), SEATS, 1).n_seats < SEATS[0]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_streams_without_a_seat_take_room_as_well(on_gpu, machine, models):
    """An exact batch has eight at least."""
    room = needed_memory([model.path for model in models.values()], 2048, 7, "f16")
    machine(*((64 * GB, room) if on_gpu else (room, None)))
    check_memory(models, Shape(2048))
    with pytest.raises(ResourceError):
        check_memory(models, Shape(2048, exact=True))


def test_the_places_make_up_the_whole(models):
    draft, target = (model.path for model in models.values())
    whole = needed_memory([draft, draft, target], 512, 2, "f16")
    for layers in (0, -1, 1):
        split = needed_by_place([(draft, layers), (draft, layers), (target, layers)], 512, 2, "f16")
        assert split.host + split.gpu == pytest.approx(whole, abs=2)


@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_a_state_and_its_snapshots_take_room_for_every_seat(kind, tiny, tiny_model, machine):
    """As large as llama.cpp makes it, once in the context and some times beside it; these are never on a GPU."""
    path = tiny(kind, seed=1)
    one, many = (needed_memory([path], 64, n_seats, "f16") for n_seats in (1, 48))
    context = Context(tiny_model(kind, seed=1), ContextOptions(64, n_batch=64))
    context.decode([Row(0, 0, [5] * 64, 1)])
    size = len(context.snapshot(0))
    context.close()
    assert many - one == pytest.approx(47 * (1 + SNAPSHOTS) * size, rel=0.2)
    split = needed_by_place([(path, -1)], 64, 48, "f16")
    assert split.host == pytest.approx(48 * SNAPSHOTS * size, rel=0.2)
    assert split.host + split.gpu == pytest.approx(many, abs=2)
    machine(one)
    model: dict[Role, FoundModel] = {"draft": FoundModel("draft", path, None, None)}
    assert with_seats(model, Shape(ctx=64), SEATS, 1).n_seats == 1


@pytest.mark.parametrize(("first", "second"), [(-1, 0), (0, -1)])
def test_a_file_of_two_roles_lies_where_the_first_has_it(first, second, tiny):
    path = tiny(seed=1)
    both = needed_by_place([(path, first), (path, second)], 512, 2, "f16")
    assert both == needed_by_place([(path, first), (path, first)], 512, 2, "f16")
    assert (both.gpu == 0) == (first == 0)


def test_a_split_model_takes_the_room_of_all_its_files(machine, tmp_path):
    names = shard_names("big-00001-of-00005.gguf")
    for name in names:
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 10 * GB)
    for memory, is_plenty in ((35 * GB, False), (99 * GB, False), (101 * GB, True)):
        machine(memory)
        assert plenty([tmp_path / names[0]], 1, 1) == is_plenty


@pytest.mark.parametrize(("wanted", "least", "named"), [([8], 1, True), ([4], 4, False), ([8, 4], 4, False)])
def test_a_refusal_names_parallel_where_fewer_seats_would_do(wanted, least, named, machine, models):
    machine(1, None)
    with pytest.raises(ResourceError) as refused:
        with_seats(models, Shape(), wanted, least)
    assert "--ctx" in refused.value.hint
    assert ("--parallel" in refused.value.hint) == named


OPTIONS = {"calibrate": {"--seats"}, "score": {"--ctx", "--seats"}}


@pytest.mark.parametrize("command", OPTIONS)
def test_only_options_that_the_command_has_are_named(command, rsd, monkeypatch):
    for name, value in rsd.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(rsd.home)
    monkeypatch.setattr("rsd_cli.registry.memory.available_memory", lambda: 1)
    (rsd.home / "q.jsonl").write_text('{"question": "What?", "problem": "What?", "steps": ["That."]}\n')
    arguments = {"calibrate": ["--trio", "judged"], "score": ["--prm", "opinion"]}
    done = CliRunner().invoke(prm.app, [command, "q.jsonl", *arguments[command]])
    assert isinstance(done.exception, ResourceError)
    named = set(re.findall(r"--[a-z-]+", done.exception.hint))
    assert named == OPTIONS[command]
    shown = CliRunner().invoke(prm.app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert {name for name in named if name not in shown} == set()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_limit_on_the_address_space_counts_before_anything_is_loaded(rsd):
    """As clusters have it; the machine itself may have plenty."""
    import resource

    limit = 400_000_000
    process = rsd.start(
        *("ask", "What?", "--trio", "tiny", "--threads", "1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    code, out, err = ended(process, 60)
    assert (code, out) == (4, b"")
    assert "0.4 GB of memory" in err
    assert "raise the limit (`ulimit -v`)" in err
