"""What is wrong with a command line of ``cornernet-export`` whose options are right one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_runtime.bundle import MANIFEST_NAME

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

ENGINE_OPTIONS = (
    "plugin",
    "require_plugin",
    "portable",
    "timing_cache",
    "optimization_level",
    "hardware_compatibility",
    "tf32",
)
OF_A_BUNDLE = {*ENGINE_OPTIONS, "checkpoint", "engine", "calibration", "force"}


def complaint(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> str | None:
    """Return what is wrong, or None."""
    given = {name for name, value in vars(arguments).items() if value != parser.get_default(name)}
    flags = {name: f"--{name.replace('_', '-')}" for name in vars(arguments)}
    lonely = sorted(flags[name] for name in given & set(ENGINE_OPTIONS))
    if lonely and not arguments.engine:
        return f"{', '.join(lonely)}: only with --engine"
    if (arguments.checkpoint / MANIFEST_NAME).is_file():
        return _of_a_bundle(arguments, sorted(flags[name] for name in given - OF_A_BUNDLE))
    if arguments.output is None:
        return _without_output(arguments.checkpoint, engine=arguments.engine)
    return _of_int8(arguments, given)


def _of_a_bundle(arguments: argparse.Namespace, foreign: list[str]) -> str | None:
    if not arguments.engine:
        return f"{arguments.checkpoint} is a bundle already; --engine adds an engine to it"
    return f"{', '.join(foreign)}: not with a bundle, which gets an engine of what it is" if foreign else None


def _without_output(path: Path, *, engine: bool) -> str:
    """Return what is wrong with a path that is no bundle."""
    if not path.exists():
        return f"{path} does not exist" if engine else "the following arguments are required: --output"
    if (path.parent / MANIFEST_NAME).is_file():
        return f"{path} is part of a bundle; name the folder: cornernet-export {path.parent} --engine"
    if path.is_dir():
        return f"{path} is no bundle: it holds no {MANIFEST_NAME}"
    return "the following arguments are required: --output"


def _of_int8(arguments: argparse.Namespace, given: set[str]) -> str | None:
    if arguments.precision != "int8":
        return "--target: only with --precision int8" if "target" in given else None
    if arguments.calibration is None:
        return "--precision int8 needs --calibration DIR: pictures like those that the model will see"
    if arguments.engine and arguments.target != "tensorrt":
        return "--engine with --precision int8 needs --target tensorrt"
    return None
