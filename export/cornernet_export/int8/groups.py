"""The parts of a network that are quantised or left in float32 as one, by the names of their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_runtime.errors import ModelError

if TYPE_CHECKING:
    import onnx

_BRANCHES = {"heat": "heat", "embed": "embedding", "offset": "offset"}


def node_groups(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Return the names of each group's nodes, in the order in which groups run first.

    The groups are the stem, each level of each hourglass, what joins hourglasses, corner pooling with the convolutions
    around it, and each kind of prediction branch, both corners together. An operator without weights belongs to the
    convolution that it follows.

    Raises:
        ModelError: A weight has a name that ``build_onnx`` gives to none.
    """
    weights = {item.name for item in graph.initializer}
    owner: dict[str, str] = {}  # of each tensor
    groups: dict[str, list[str]] = {}
    for node in graph.node:
        own = [name for name in node.input if name in weights and name.endswith(".weight")]
        before = [owner[name] for name in node.input if name in owner]
        if not own and not before:  # a constant
            continue
        group = group_of(own[0]) if own else before[0]
        owner.update(dict.fromkeys(node.output, group))
        groups.setdefault(group, []).append(node.name)
    return {name: tuple(nodes) for name, nodes in groups.items()}


def group_of(weight: str) -> str:
    """Return the group of a weight: ``hourglasses.0.inner.keep.0.first.0.weight`` is of ``hourglass 1, level 2``."""
    part, *rest = weight.split(".")
    if part == "stem":
        return "stem"
    if part == "hourglasses":
        return f"hourglass {int(rest[0]) + 1}, level {rest.count('inner') + 1}"
    if part in {"outputs", "merge_inputs", "merge_outputs", "merged"}:
        return "joints of hourglasses"
    if part in {"top_left", "bottom_right"}:
        return _BRANCHES.get(rest[1], "corner pooling")
    raise ModelError(f"{weight}: no weight of a CornerNet of ours; export the checkpoint again")
