"""Tensor names of published checkpoints, translated to ours.

Each family is first brought to the names of princeton-vl/CornerNet, by a short table; one function goes on from there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cornernet_export.model.config import Unit

Rules = tuple[tuple[str, str], ...]  # regular expression and replacement, all applied in order

TO_PRINCETON: dict[str, Rules] = {
    "princeton": (),
    "lite": (
        (r"^hg\.hgs\.", "kps."),
        (r"^hg\.", ""),
        (r"^(tl|br)_modules\.", r"\1_cnvs."),
        (r"^(tl|br)_offs\.", r"\1_regrs."),
    ),
    "mmdetection": (
        (r"^backbone\.stem\.0\.", "pre.0."),
        (r"^backbone\.stem\.1\.0\.", "pre.1."),
        (r"^backbone\.hourglass_modules\.", "kps."),
        (r"^backbone\.out_convs\.", "cnvs."),
        (r"^backbone\.conv1x1s\.(\d+)\.conv\.", r"inters_.\1.0."),
        (r"^backbone\.conv1x1s\.(\d+)\.bn\.", r"inters_.\1.1."),
        (r"^backbone\.remap_convs\.(\d+)\.conv\.", r"cnvs_.\1.0."),
        (r"^backbone\.remap_convs\.(\d+)\.bn\.", r"cnvs_.\1.1."),
        (r"^backbone\.inters\.", "inters."),
        (r"^bbox_head\.(tl|br)_pool\.", r"\1_cnvs."),
        (r"\.direction([12])_conv\.", r".p\1_conv1."),
        (r"\.aftpool_conv\.conv\.", ".p_conv1."),
        (r"\.aftpool_conv\.bn\.", ".p_bn1."),
        (r"^((?:tl|br)_cnvs\.\d+)\.conv1\.conv\.", r"\1.conv1."),
        (r"^((?:tl|br)_cnvs\.\d+)\.conv1\.bn\.", r"\1.bn1."),
        (r"^bbox_head\.(tl|br)_heat\.", r"\1_heats."),
        (r"^bbox_head\.(tl|br)_emb\.", r"\1_tags."),
        (r"^bbox_head\.(tl|br)_off\.", r"\1_regrs."),
        (r"^((?:tl|br)_(?:heats|tags|regrs)\.\d+\.1)\.conv\.", r"\1."),
        (r"\.downsample\.", ".skip."),
    ),
}

_CORNERS = {"tl": "top_left", "br": "bottom_right"}
_BRANCHES = {"heats": "heat", "tags": "embed", "regrs": "offset"}
_TRUNK: Rules = (
    (r"^pre\.", "stem."),
    (r"^kps\.", "hourglasses."),
    (r"^cnvs\.", "outputs."),
    (r"^inters_\.", "merge_inputs."),
    (r"^cnvs_\.", "merge_outputs."),
    (r"^inters\.", "merged."),
    (r"\.up1\.", ".keep."),
    (r"\.low1\.", ".down."),
    (r"\.low2(?=\.)", ".inner"),  # of nested hourglasses, so one may follow another
    (r"\.low3\.", ".back."),
    (r"\.up2\.", ".up."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
)
_UNITS: dict[Unit, Rules] = {
    "residual": (
        (r"\.conv1\.", ".first.0."),
        (r"\.bn1\.", ".first.1."),
        (r"\.conv2\.", ".second.0."),
        (r"\.bn2\.", ".second.1."),
    ),
    "fire": (
        (r"\.conv1\.", ".squeeze.0."),
        (r"\.bn1\.", ".squeeze.1."),
        (r"\.conv_1x1\.", ".pointwise."),
        (r"\.conv_3x3\.", ".depthwise."),
        (r"\.bn2\.", ".norm."),
    ),
}
_HEAD: Rules = (
    (r"^p1_conv1\.", "vertical."),
    (r"^p2_conv1\.", "horizontal."),
    (r"^p_conv1\.", "after_pool.0."),
    (r"^p_bn1\.", "after_pool.1."),
    (r"^conv1\.", "skip.0."),
    (r"^bn1\.", "skip.1."),
    (r"^conv2\.", "refine."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
)


def translate(name: str, family: str, unit: Unit) -> str:
    """Return our name for a tensor of a published checkpoint; one that has no counterpart keeps its own.

    Args:
        name: Without the ``module.`` that data-parallel training puts before it.
        family: ``princeton``, ``lite`` or ``mmdetection``.
        unit: Of the hourglass; the stem and the merges are residuals in all families.
    """
    name = _apply(TO_PRINCETON[family], name)
    if branch := re.match(r"(tl|br)_(heats|tags|regrs)\.(\d+)\.(0\.conv|1)\.(weight|bias)$", name):
        corner, kind, stack, layer, tensor = branch.groups()
        return f"{_CORNERS[corner]}.{stack}.{_BRANCHES[kind]}.{2 if layer == '1' else 0}.{tensor}"
    if head := re.match(r"(tl|br)_cnvs\.(\d+)\.(.+)$", name):
        corner, stack, rest = head.groups()
        return f"{_CORNERS[corner]}.{stack}.{_apply(_HEAD, rest)}"
    return _apply(_UNITS[unit if name.startswith("kps.") else "residual"], _apply(_TRUNK, name))


def _apply(rules: Rules, name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
