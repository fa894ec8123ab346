"""Names and shapes of the tensors in published checkpoints, generated from the projects' layer names.

Written apart from the loader, so that the loader is held against it: here layers are listed, there names are rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a project names its layers."""

    trunk: str  # before stem, outputs and merges
    hourglass: str
    corner: str  # of the pooling module, with {} for tl or br
    offsets: str
    fire: bool = False


PRINCETON = Layout("", "kps", "{}_cnvs", "{}_regrs")
LITE = Layout("hg.", "hg.hgs", "{}_modules", "{}_offs")
SQUEEZE = Layout("hg.", "hg.hgs", "{}_modules", "{}_offs", fire=True)


def norm(name, width):
    yield from ((f"{name}.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var"))
    yield f"{name}.num_batches_tracked", ()


def conv_bn(name, norm_name, kernel, inputs, outputs):
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    yield from norm(norm_name, outputs)


def convolution(name, kernel, inputs, outputs):
    yield from conv_bn(f"{name}.conv", f"{name}.bn", kernel, inputs, outputs)


def residual(name, inputs, outputs, stride=1, skip="skip"):
    yield from conv_bn(f"{name}.conv1", f"{name}.bn1", 3, inputs, outputs)
    yield from conv_bn(f"{name}.conv2", f"{name}.bn2", 3, outputs, outputs)
    if stride != 1 or inputs != outputs:
        yield from conv_bn(f"{name}.{skip}.0", f"{name}.{skip}.1", 1, inputs, outputs)


def fire(name, inputs, outputs, stride=1):
    del stride
    half = outputs // 2
    yield from conv_bn(f"{name}.conv1", f"{name}.bn1", 1, inputs, half)
    yield f"{name}.conv_1x1.weight", (half, half, 1, 1)
    yield f"{name}.conv_3x3.weight", (half, 1, 3, 3)
    yield from norm(f"{name}.bn2", outputs)


def hourglass(name, dims, modules, unit):
    outer, inner = dims[:2]
    for i in range(modules[0]):
        yield from unit(f"{name}.up1.{i}", outer, outer)
        yield from unit(f"{name}.low1.{i}", outer if i == 0 else inner, inner, 2 if i == 0 else 1)
        yield from unit(f"{name}.low3.{i}", inner, outer if i == modules[0] - 1 else inner)
    if len(dims) > 2:
        yield from hourglass(f"{name}.low2", dims[1:], modules[1:], unit)
    else:
        for i in range(modules[1]):
            yield from unit(f"{name}.low2.{i}", inner, inner)
    if unit is fire:
        yield from ((f"{name}.up2.weight", (outer, outer, 4, 4)), (f"{name}.up2.bias", (outer,)))


def branch(name, kernel, outputs, last="1"):
    yield from ((f"{name}.0.conv.weight", (256, 256, kernel, kernel)), (f"{name}.0.conv.bias", (256,)))
    yield from ((f"{name}.{last}.weight", (outputs, 256, 1, 1)), (f"{name}.{last}.bias", (outputs,)))


def princeton(layout=PRINCETON, classes=80):
    """Names and shapes of a CornerNet, CornerNet-Lite or CornerNet-Squeeze state dict."""
    trunk, unit = layout.trunk, fire if layout.fire else residual
    dims, modules = (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4)
    if layout.fire:
        dims, modules = (256, 256, 384, 384, 512), (2, 2, 2, 2, 4)
        yield from residual(f"{trunk}pre.2", 256, 256, 2)
    yield from convolution(f"{trunk}pre.0", 7, 3, 128)
    yield from residual(f"{trunk}pre.1", 128, 256, 2)
    for stack in (0, 1):
        yield from hourglass(f"{layout.hourglass}.{stack}", dims, modules, unit)
        yield from convolution(f"{trunk}cnvs.{stack}", 3, 256, 256)
        for corner in ("tl", "br"):
            head = f"{layout.corner.format(corner)}.{stack}"
            yield from convolution(f"{head}.p1_conv1", 3, 256, 128)
            yield from convolution(f"{head}.p2_conv1", 3, 256, 128)
            yield from conv_bn(f"{head}.p_conv1", f"{head}.p_bn1", 3, 128, 256)
            yield from conv_bn(f"{head}.conv1", f"{head}.bn1", 1, 256, 256)
            yield from convolution(f"{head}.conv2", 3, 256, 256)
            kernel = 1 if layout.fire else 3
            yield from branch(f"{corner}_heats.{stack}", kernel, classes)
            yield from branch(f"{corner}_tags.{stack}", kernel, 1)
            yield from branch(f"{layout.offsets.format(corner)}.{stack}", kernel, 2)
    yield from residual(f"{trunk}inters.0", 256, 256)
    yield from conv_bn(f"{trunk}inters_.0.0", f"{trunk}inters_.0.1", 1, 256, 256)
    yield from conv_bn(f"{trunk}cnvs_.0.0", f"{trunk}cnvs_.0.1", 1, 256, 256)


def mmdetection(classes=80):
    """Names and shapes of the state dict of mmdetection's CornerNet."""

    def unit(name, inputs, outputs, stride=1):
        return residual(name, inputs, outputs, stride, skip="downsample")

    yield from convolution("backbone.stem.0", 7, 3, 128)
    yield from unit("backbone.stem.1.0", 128, 256, 2)
    for stack in (0, 1):
        name = f"backbone.hourglass_modules.{stack}"
        yield from hourglass(name, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), unit)
        yield from convolution(f"backbone.out_convs.{stack}", 3, 256, 256)
        for corner in ("tl", "br"):
            head = f"bbox_head.{corner}_pool.{stack}"
            for layer, kernel, inputs, outputs in (
                ("direction1_conv", 3, 256, 128),
                ("direction2_conv", 3, 256, 128),
                ("aftpool_conv", 3, 128, 256),
                ("conv1", 1, 256, 256),
                ("conv2", 3, 256, 256),
            ):
                yield from convolution(f"{head}.{layer}", kernel, inputs, outputs)
            for kind, outputs in (("heat", classes), ("emb", 1), ("off", 2)):
                yield from branch(f"bbox_head.{corner}_{kind}.{stack}", 3, outputs, last="1.conv")
    yield from unit("backbone.inters.0", 256, 256)
    yield from convolution("backbone.conv1x1s.0", 1, 256, 256)
    yield from convolution("backbone.remap_convs.0", 1, 256, 256)
