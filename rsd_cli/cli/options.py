"""Options that several commands share, and how one is refused that is none of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rsd_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

Word = TypeVar("Word", bound=str)

DEFAULT_TRIO = "starter"

Trio = Annotated[str, typer.Option("--trio", "-t", metavar="NAME", help="Draft, target and PRM by one name.")]
Draft = Annotated[str | None, typer.Option("--draft", metavar="MODEL", help="Another draft model.")]
Target = Annotated[str | None, typer.Option("--target", metavar="MODEL", help="Another target model.")]
Prm = Annotated[
    str | None, typer.Option("--prm", metavar="PRM", help="Another PRM, a head's file, or a model as judge.")
]
ModelsFile = Annotated[
    Path | None, typer.Option("--models", metavar="FILE", help="A models.yaml that adds to the packed one.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use no network.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Use model files whose hash does not match.")]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Download models that are large or of unknown size without asking."),
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Threads = Annotated[int, typer.Option("--threads", min=0, max=512, help="CPU threads; 0 is one per core.")]
Ctx = Annotated[
    int,
    typer.Option("--ctx", min=0, max=1 << 24, help="Context in tokens; 0 is the model's own, up to 4096."),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=32, max=8192, help="Tokens of a prompt that are read at once.")
]
GpuLayers = Annotated[
    str,
    typer.Option(
        "--gpu-layers",
        metavar="N|ROLE=N,...",
        help="Layers on the GPU, for all or per role (draft=99,target=20); default all that the build can.",
    ),
]
KvType = Annotated[str, typer.Option("--kv-type", help="Type of the KV cache: f16, q8_0, q4_0 or f32.")]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy", metavar="NAME[@N][:AUTHOR]", help="rsd, target, draft; README lists them all."
    ),
]
Speculative = Annotated[
    bool | None,
    typer.Option(
        "--speculative/--no-speculative",
        help="The target writes its steps over tokens that the draft proposes.",
    ),
]
Weighting = Annotated[
    str | None,
    typer.Option(
        "--weighting",
        metavar="NAME[:X=Y,...]",
        help="How a reward decides: binary (as a rule), constant:p=, clip, sigmoid, logistic:alpha=; "
        "binary and logistic take delta=, else the threshold.",
    ),
]
TargetShare = Annotated[
    float | None,
    typer.Option("--target-share", min=0, max=1, help="Share of steps for the target, not a threshold."),
]
SharePer = Annotated[
    str | None,
    typer.Option("--share-per", help="--target-share holds in the run (as a rule) or each problem."),
]
Beta = Annotated[
    float | None,
    typer.Option("--beta", min=0.01, max=1e6, help="Draw one of several steps by exp(beta x reward)."),
]
Aggregate = Annotated[
    str | None,
    typer.Option("--aggregate", help="Rewards of a whole answer: last (as a rule), min, product or mean."),
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", min=0, max=1, help="Least reward of a draft step that stays.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Longest answer.")]
MaxSteps = Annotated[int, typer.Option("--max-steps", min=1, help="Most steps of an answer.")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", "--temp", min=0, max=10, help="0 takes the likeliest token.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed for temperatures above 0.")]
System = Annotated[
    str | None, typer.Option("--system", "-s", help="System prompt; '' for none. Default: the paper's.")
]

# In a conversation what is not given stays as it was, so nothing here has a default of its own; another strategy
# begins with its own threshold and without the options of the one before.
TalkTrio = Annotated[
    str | None,
    typer.Option(
        "--trio", "-t", metavar="NAME", help=f"Draft, target and PRM by one name; at first {DEFAULT_TRIO}."
    ),
]
TalkStrategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME[@N][:AUTHOR]",
        help="rsd (at first), target, draft; README lists them all. Another one leaves the method's options behind.",
    ),
]
TalkMaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", "-n", min=1, help="Longest answer; at first 2048.")
]
TalkMaxSteps = Annotated[
    int | None, typer.Option("--max-steps", min=1, help="Most steps of an answer; at first 100.")
]
TalkSeed = Annotated[int | None, typer.Option("--seed", help="Seed for temperatures above 0; at first 0.")]
NoLog = Annotated[bool, typer.Option("--no-log", help="Keep nothing of this conversation on disk.")]


def one_of(option: str, text: str, known: Collection[Word]) -> Word:
    """The known word that was given."""
    word = next((each for each in known if each == text), None)
    if word is None:
        raise UsageError(f"{option} {text[:50]!r} is unknown.", f"Choose one of {', '.join(known)}.")
    return word
