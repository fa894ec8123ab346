"""What is wrong with a command line of ``cornernet-export`` whose options are right one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_runtime.bundle.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    import argparse

ENGINE_OPTIONS = (
    "plugin",
    "require_plugin",
    "portable",
    "timing_cache",
    "optimization_level",
    "hardware_compatibility",
    "tf32",
)
OF_A_BUNDLE = {*ENGINE_OPTIONS, "checkpoint", "engine", "calibration", "triton", "force"}


def complaint(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> str | None:
    """Return what is wrong, or None."""
    given = {name for name, value in vars(arguments).items() if value != parser.get_default(name)}
    flags = {name: f"--{name.replace('_', '-')}" for name in vars(arguments)}
    if not arguments.engine and (lonely := _lonely(given, flags)):
        return lonely
    if (arguments.checkpoint / MANIFEST_NAME).is_file():
        return _of_a_bundle(arguments, sorted(flags[name] for name in given - OF_A_BUNDLE))
    if arguments.output is None:
        return _without_output(arguments)
    return _of_int8(arguments, given)


def _lonely(given: set[str], flags: dict[str, str]) -> str | None:
    """Return which options there are without the engine that they are about."""
    foreign = given & set(ENGINE_OPTIONS)
    if "triton" in given and "output" not in given:
        foreign -= {"plugin"}  # of the engine that the bundle may have
    return f"{', '.join(sorted(flags[name] for name in foreign))}: only with --engine" if foreign else None


def _of_a_bundle(arguments: argparse.Namespace, foreign: list[str]) -> str | None:
    if not arguments.engine and arguments.triton is None:
        return (
            f"{arguments.checkpoint} is a bundle already; --engine adds an engine to it, --triton DIR makes a model "
            "repository of it"
        )
    if foreign:
        return f"{', '.join(foreign)}: not with a bundle, which gets an engine or a model repository of what it is"
    if arguments.calibration is not None and not arguments.engine:
        return "--calibration: with a bundle only beside --engine, which is verified on these pictures"
    return None


def _without_output(arguments: argparse.Namespace) -> str:
    """Return what is wrong with a path that is no bundle."""
    path, of_a_bundle = arguments.checkpoint, arguments.engine or arguments.triton is not None
    if not path.exists():
        return f"{path} does not exist" if of_a_bundle else "the following arguments are required: --output"
    if (path.parent / MANIFEST_NAME).is_file():
        option = "--engine" if arguments.engine or arguments.triton is None else f"--triton {arguments.triton}"
        return f"{path} is part of a bundle; name the folder: cornernet-export {path.parent} {option}"
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
