"""Which tests could notice a fault, from coverage data that names the test each line ran in.

The data is recorded with coverage's ``dynamic_context = test_function``. It assigns no test to code that ran in a
subprocess, a fixture or an import, so for such lines the tests that mirror the module are run as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fault_sites import Fault


class Covering:
    """Tests by the line they ran.

    Args:
        data_file: Combined coverage data; None if there is none.
        paths: Source files to keep lines of, relative to the tree, with forward slashes.
    """

    def __init__(self, data_file: Path | None, paths: set[str]) -> None:
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(dict)
        self.cost: Counter[str] = (
            Counter()
        )  # lines that a test runs, of all files: the fewer, the quicker it tends to be
        if data_file is not None:
            self._read(data_file, paths)

    def _read(self, data_file: Path, paths: set[str]) -> None:
        from coverage import CoverageData  # noqa: PLC0415 - not needed without a file

        data = CoverageData(str(data_file))
        data.read()
        for measured in data.measured_files():
            contexts_by_line = data.contexts_by_lineno(measured)
            self.cost.update(context for contexts in contexts_by_line.values() for context in contexts)
            path = _known(measured, paths)
            for line, contexts in contexts_by_line.items() if path else ():
                self.lines[path].setdefault(line, set()).update(contexts)

    def of_statement(self, fault: Fault) -> set[str]:
        """Return the tests that ran the statement; the empty name stands for no test."""
        lines = self.lines.get(fault.path, {})
        return set().union(*(lines.get(line, set()) for line in range(fault.first, fault.last + 1)))

    def of_file(self, fault: Fault) -> set[str]:
        """Return the tests that ran any line of the file."""
        return set().union(*self.lines.get(fault.path, {}).values())


def candidates_for(fault: Fault, covering: Covering, collected: list[str]) -> list[str]:
    """Return the tests that could notice ``fault``, those that run its statement first.

    Args:
        fault: The fault.
        covering: What ran where.
        collected: Node ids of the tests to choose from, without parameters.

    Returns:
        Node ids. Complete where the statement only ran inside tests. Where it also ran outside, the tests that mirror
        its file or run any of it follow; where it only ran outside, or nowhere, all tests of its folder.
    """
    ids = {_context(node_id): node_id for node_id in collected}

    def known(contexts: set[str]) -> list[str]:
        return _cheapest_first([context for context in ids if context in contexts], covering.cost, ids)

    running = covering.of_statement(fault)
    tests = known(running)
    if not tests or "" in running:
        tests += known({_context(node_id) for node_id in collected if _mirrors(node_id, fault)})
        tests += known(covering.of_file(fault))
    if not tests or running <= {""}:
        tests += known({_context(node_id) for node_id in collected if _folders(fault) & set(_file(node_id).parts)})
    return list(dict.fromkeys(tests))


def _known(measured: str, paths: set[str]) -> str:
    """Return which of ``paths`` the measured file is, in whichever folder it was measured; empty for none."""
    parts = Path(measured).parts
    return next((path for path in paths if parts[-len(PurePosixPath(path).parts) :] == PurePosixPath(path).parts), "")


def _context(node_id: str) -> str:
    """Return what coverage calls the test: ``tests/a/test_b.py::test_c`` is ``tests.a.test_b.test_c``."""
    file, _, name = node_id.partition("::")
    return f"{file.removesuffix('.py').replace('/', '.')}.{name.replace('::', '.')}"


def _cheapest_first(contexts: list[str], cost: Counter[str], ids: dict[str, str]) -> list[str]:
    """Sort by cost, the tests of one file together, as they may share fixtures that are slow to make."""
    costs = defaultdict(list)
    for context in contexts:
        costs[_file(ids[context])].append(cost[context])

    def key(context: str) -> tuple[float, str, int]:
        file = _file(ids[context])
        return sum(costs[file]) / len(costs[file]), str(file), cost[context]

    return [ids[context] for context in sorted(contexts, key=key)]


def _file(node_id: str) -> PurePosixPath:
    return PurePosixPath(node_id.partition("::")[0])


def _folders(fault: Fault) -> set[str]:
    """Return the folders that can hold the tests of a module: its source root and its subpackages."""
    root, _package, *inner = PurePosixPath(fault.path).parent.parts
    return {root, *inner}


def _mirrors(node_id: str, fault: Fault) -> bool:
    """Tell whether a test file is named after the module, by the first word, or after its subpackage."""
    _root, _package, *inner = PurePosixPath(fault.path).parent.parts
    names = {PurePosixPath(fault.path).stem.partition("_")[0], *inner}
    file = _file(node_id)
    word = file.stem.removeprefix("test_").partition("_")[0]
    return bool(_folders(fault) & set(file.parent.parts)) and bool(names & {word, *file.parent.parts})
