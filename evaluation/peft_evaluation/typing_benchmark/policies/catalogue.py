"""The policies, which are the systems under test, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peft_core.errors import InvalidInput
from peft_evaluation.typing_benchmark.policies.base import BenchModel, PolicySession
from peft_evaluation.typing_benchmark.policies.llama_vscode import LlamaVscodeSession
from peft_evaluation.typing_benchmark.policies.ours import OursSession
from peft_evaluation.typing_benchmark.replay import TraceWorkspace


@dataclass(frozen=True)
class Policy:
    """One system under test."""

    name: str
    what: str
    recreated: bool
    """Whether it is re-created from another project, with the server settings that its authors recommend."""
    open: Callable[[BenchModel, TraceWorkspace], PolicySession]


_POLICIES = (
    Policy(
        "ours",
        "peft-daemon as installed, with the adapter it comes with",
        False,
        lambda engine, workspace: OursSession(engine, workspace, {}),
    ),
    Policy(
        "ours-all",
        "the same, which shows what the model writes however unsure it is, also in comments and strings",
        False,
        lambda engine, workspace: OursSession(engine, workspace, {"eagerness": "all", "silentIn": []}),
    ),
    Policy(
        "ours-base",
        "peft-daemon without an adapter: the same weights as the others have",
        False,
        lambda engine, workspace: OursSession(engine, workspace, {"adapter": "base"}),
    ),
    Policy(
        "llama.vscode",
        "llama.vscode's policy, re-created",
        True,
        lambda engine, _: LlamaVscodeSession(engine),
    ),
)
POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in _POLICIES}
DEFAULT = ("ours", "llama.vscode")
RIVALS = tuple(policy.name for policy in _POLICIES if policy.recreated)
"""The policies that our goals are compared with."""


def choose_policies(names: Sequence[str]) -> tuple[Policy, ...]:
    """Return the policies with these names, each once; raises InvalidInput for an unknown name."""
    for name in names:
        if name not in POLICIES:
            raise InvalidInput(f"there is no policy '{name}'", fix=f"One of: {', '.join(POLICIES)}")
    return tuple(POLICIES[name] for name in dict.fromkeys(names))
