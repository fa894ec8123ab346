"""Kernels compiled by NVRTC, which needs neither nvcc nor a GPU, and kept in the user's cache folder.

A compiled file is found by everything that it was made of: the source with all that it includes, CUDA's own headers
among that, NVRTC's version, the options and the architecture. What is found broken is compiled again, and what cannot
be kept is used all the same; a warning says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import KernelError, OutputError
from cornernet_runtime.files import CACHE_VARIABLE, cache_folder, make_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SOURCES = Path(__file__).resolve().parent
# Products are not contracted into fused operations, so that results can be compared with those of the CPU.
OPTIONS = ("--std=c++17", "--fmad=false")
OLDEST = (7, 5)

# CUDA's headers that the sources include; of another wheel than NVRTC, so its version does not tell theirs.
CUDA_INCLUDES = ("cuda_runtime_api.h", "cuda_fp16.h", "cuda_fp16.hpp")

_MAGIC = b"cornernet kernel 1\n"
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(")
_INSTALL = "pip install nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl cuda-bindings"


@dataclass(frozen=True, slots=True)
class Program:
    """What a ``.cu`` file was compiled to.

    Attributes:
        target: ``sm_90`` and the like, for which ``code`` is a cubin, or ``compute_90``: PTX for GPUs to come.
        code: Of all its kernels.
        symbols: What each kernel is called in the code, by its name in the source.
        log: What the compiler said; empty if it came from the cache.
    """

    target: str
    code: bytes
    symbols: dict[str, str]
    log: str = field(default="", compare=False)

    @property
    def is_ptx(self) -> bool:
        """Whether the driver has to compile the code for its GPU."""
        return self.target.startswith("compute_")


def load_program(source: str, capability: tuple[int, int], folder: Path | None = None) -> Program:
    """Return a source compiled for a GPU, from the cache if it is there.

    Args:
        source: Stem of a ``.cu`` file beside this one.
        capability: Compute capability of the GPU, major and minor.
        folder: Of the cache; by default ``kernels`` in ``files.cache_folder()``.

    Raises:
        KernelError: The GPU is too old, NVRTC or CUDA's headers are missing, or the source does not compile.
    """
    target = target_of(capability)
    path = SOURCES / f"{source}.cu"
    digest = _digest(path, target)
    folder = folder or _usual_folder()
    file = folder / f"{source}-{target}-{digest[:16]}.bin" if folder else None
    program = _read(file, target, digest) if file else None
    if program is None:
        program = compile_source(path, target)
        if file:
            _write(file, program, digest)
    return program


def compile_source(
    path: Path,
    target: str,
    options: Sequence[str] = (),
    names: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Program:
    """Compile a ``.cu`` file, whatever the cache holds.

    Args:
        path: Of the file; it includes others from its own folder and CUDA's headers.
        target: As ``target_of`` returns it.
        options: Added to ``OPTIONS``; ``--ptxas-options=-v`` makes the log tell registers and memory.
        names: Of the kernels, as C++ spells them; by default those that the file itself defines in ``cornernet``.
        headers: Further headers by name, such as ``cstdint``: NVRTC has none of the standard library.

    Raises:
        KernelError: NVRTC or CUDA's headers are missing, or the source does not compile: the message holds the log.
    """
    text = _text(path)
    nvrtc = _nvrtc()
    if names is None:
        names = [f"cornernet::{name}" for name in _KERNEL.findall(text)]
    folders = (path.parent, *cuda_headers())
    flags = [*OPTIONS, f"--gpu-architecture={target}", *(f"--include-path={place}" for place in folders), *options]
    given = {name.encode(): content.encode() for name, content in (headers or {}).items()}
    (program,) = _ask(
        nvrtc.nvrtcCreateProgram, text.encode(), path.name.encode(), len(given), [*given.values()], [*given]
    )
    try:
        for name in names:
            _ask(nvrtc.nvrtcAddNameExpression, program, name.encode())
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        log = _take(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0 \n").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise KernelError(f"{path.name} does not compile for {target} ({status.name}):\n{log}")
        symbols = {}
        for name in names:
            (symbol,) = _ask(nvrtc.nvrtcGetLoweredName, program, name.encode())
            symbols[name.removeprefix("cornernet::")] = symbol.decode()
        if target.startswith("compute_"):
            code = _take(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
        else:
            code = _take(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Program(target, code, symbols, log)


def target_of(capability: tuple[int, int]) -> str:
    """Return what to compile for on a GPU: its own architecture, or PTX of the newest before it that NVRTC knows.

    Raises:
        KernelError: The GPU is too old, or NVRTC is missing.
    """
    if capability < OLDEST:
        have, need = (".".join(map(str, version)) for version in (capability, OLDEST))
        raise KernelError(
            f"this GPU has compute capability {have}, the kernels need {need} (Turing) or newer; use onnxruntime"
        )
    nvrtc = _nvrtc()
    (known,) = _ask(nvrtc.nvrtcGetSupportedArchs)
    wanted = 10 * capability[0] + capability[1]
    if wanted in known:
        return f"sm_{wanted}"
    older = [number for number in known if number < wanted]
    if not older:
        have = ".".join(map(str, capability))
        raise KernelError(f"NVRTC {nvrtc_version()} is too new for compute capability {have}; install an older one")
    return f"compute_{max(older)}"


def nvrtc_version() -> str:
    """Return NVRTC's version, such as ``13.5``.

    Raises:
        KernelError: It is missing.
    """
    major, minor = _ask(_nvrtc().nvrtcVersion)
    return f"{major}.{minor}"


def cuda_headers() -> tuple[Path, ...]:
    """Return the folders of CUDA's headers and of libcu++, of NVIDIA's wheels or an installed toolkit.

    Raises:
        KernelError: There are none.
    """
    try:
        from cuda.pathfinder import find_nvidia_header_directory  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise KernelError(f"NVRTC is not installed, and kernels are compiled at first use: {_INSTALL}") from error
    found = [find_nvidia_header_directory(name) for name in ("cudart", "cccl")]
    folders = tuple(Path(place) for place in found if place)
    for needed in ("cuda_fp16.h", "crt/host_defines.h", "nv/target"):
        if not any((folder / needed).is_file() for folder in folders):
            raise KernelError(f"CUDA's header {needed} is not installed, and kernels need it: {_INSTALL}")
    return folders


def _usual_folder() -> Path | None:
    folder = cache_folder()
    if folder is None:
        _warn(f"there is no home folder to keep compiled kernels in: set {CACHE_VARIABLE} to a folder")
        return None
    return folder / "kernels"


def _nvrtc() -> Any:  # noqa: ANN401 - a module without types
    """Return the bindings of NVRTC, whose library loads."""
    try:
        from cuda.bindings import nvrtc  # noqa: PLC0415 - an extra

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:  # no bindings; bindings that find no library
        raise KernelError(f"NVRTC is not installed, and kernels are compiled at first use: {_INSTALL}") from error
    return nvrtc


def _ask(function: Callable[..., tuple[Any, ...]], *arguments: object) -> tuple[Any, ...]:
    """Call NVRTC and return what it returns after its status."""
    status, *values = function(*arguments)
    if status:
        raise KernelError(f"{function.__name__} returned {status.name}")
    return tuple(values)


def _take(size_of: Callable[..., tuple[Any, ...]], get: Callable[..., tuple[Any, ...]], program: object) -> bytes:
    (size,) = _ask(size_of, program)
    # The bindings want bytes and write into them. Never one byte: Python shares that object with all other code, where
    # the end of an empty log would turn every b" " into a null.
    data = bytes(max(int(size), 2))
    _ask(get, program, data)
    return data[: int(size)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise KernelError(f"{path}: cannot be read: {error.strerror or error}; install cornernet-trt again") from error


def _digest(path: Path, target: str) -> str:
    """Return a hash of all that the code depends on."""
    parts = [_MAGIC.decode(), nvrtc_version(), target, *OPTIONS]
    folders = cuda_headers()
    for name in CUDA_INCLUDES:  # as the compiler finds them; the first holds CUDART_VERSION
        header = next((folder / name for folder in folders if (folder / name).is_file()), None)
        parts.append(_text(header) if header else "")
    waiting, seen = [path], {path}
    while waiting:
        text = _text(waiting.pop())
        parts.append(text)
        for name in _INCLUDE.findall(text):
            included = path.parent / name
            if included not in seen:
                seen.add(included)
                waiting.append(included)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(file: Path, target: str, digest: str) -> Program | None:
    """Return the program of a cache file; None if there is none, or none that can be trusted."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn(f"{file}: cannot be read ({error.strerror or error}); the kernels are compiled again")
        return None
    checksum, _, payload = data.removeprefix(_MAGIC).partition(b"\n")
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).hexdigest().encode() != checksum:
        _warn(f"{file}: broken; the kernels are compiled again")
        return None
    header, _, code = payload.partition(b"\n")
    facts = json.loads(header)
    if (facts["target"], facts["digest"]) != (target, digest):
        _warn(f"{file}: of other kernels than its name says; they are compiled again")
        return None
    return Program(target, code, facts["symbols"])


def _write(file: Path, program: Program, digest: str) -> None:
    facts = {"target": program.target, "digest": digest, "symbols": program.symbols}
    payload = json.dumps(facts).encode() + b"\n" + program.code
    checksum = hashlib.sha256(payload).hexdigest().encode()
    try:
        make_folder(file.parent)
        write_atomically(file, _MAGIC + checksum + b"\n" + payload)
    except OutputError as error:
        _warn(f"compiled kernels are not kept: {error}; set {CACHE_VARIABLE} to a folder that can be written")


def _warn(message: str) -> None:
    """Say it; Python's own filter shows equal warnings of one place once."""
    warnings.warn(message, UserWarning, stacklevel=2)
