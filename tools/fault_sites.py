"""Small faults that a test suite should notice: find where code can take one, draw some, and apply one.

A fault changes one expression and no other byte of its file. The same seed on the same sources draws
the same faults. A fault is recognised by its edit and its line's text, so a list that was drawn earlier still applies
after changes elsewhere, and after the code has moved.
"""

from __future__ import annotations

import ast
import random
import tomllib
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

TURNED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
# Swapped arguments change nothing here.
SYMMETRIC = {"min", "max", "minimum", "maximum", "gcd", "hypot", "array_equal", "add_argument"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One edit of one source file.

    Attributes:
        path: File, relative to the tree, with forward slashes.
        line: First line of the edit, from 1.
        column: Byte within that line, from 0.
        scope: Classes and functions around it, joined by dots; empty at module level.
        kind: ``comparison``, ``constant``, ``branch`` or ``arguments``.
        text: The whole line as it was, stripped.
        before: The source text that is replaced.
        after: What replaces it.
        first: First line of the statement's own code; a nested body does not count.
        last: Last line of the statement's own code.
    """

    path: str
    line: int
    column: int
    scope: str
    kind: str
    text: str
    before: str
    after: str
    first: int
    last: int

    def __str__(self) -> str:
        before, after = (" ".join(side.split()) for side in (self.before, self.after))
        return f"{self.path}:{self.line} {self.kind}: {before} -> {after}"

    def applied(self, source: bytes) -> bytes:
        """Return ``source`` with this fault in it. Raises ``ValueError`` where the source is not what it was."""
        start = sum(map(len, source.splitlines(keepends=True)[: self.line - 1])) + self.column
        end = start + len(self.before.encode())
        if source[start:end] != self.before.encode():
            message = f"{self.path}:{self.line} does not hold {self.before!r}: draw the faults again"
            raise ValueError(message)
        return source[:start] + self.after.encode() + source[end:]


def draw(root: Path, seed: int, count: int) -> list[Fault]:
    """Draw ``count`` faults over the packages of the tree ``root``.

    Each package gets a share by its number of lines; within a package every site has the same chance.
    """
    packages = package_folders(root)
    lines = [sum(len(path.read_bytes().splitlines()) for path in _modules(root, package)) for package in packages]
    drawn = []
    for package, share in zip(packages, _shares(lines, count), strict=True):
        sites = package_sites(root, package)
        random.Random(f"{seed} {package}").shuffle(sites)  # noqa: S311 - a repeatable draw, not a secret
        compiling = (fault for fault in sites if _compiles(root, fault))
        drawn += sorted((fault for fault, _ in zip(compiling, range(share), strict=False)), key=_position)
    return drawn


def locate(root: Path, faults: list[Fault]) -> list[Fault | None]:
    """Find each fault of an earlier tree in the tree ``root``: None where its code has gone.

    The same edit of an equal line is the same fault, and so is the same edit within the same scope of the same file.
    Of several, the line's text, the file, the package, the file's name, the scope, the column and the nearest line
    decide, in this order.
    """
    sites: dict[tuple[str, ...], list[Fault]] = {}
    for package in package_folders(root):
        for site in package_sites(root, package):
            sites.setdefault((site.kind, site.before, site.after), []).append(site)

    def candidates(fault: Fault) -> list[Fault]:
        same_edit = sites.get((fault.kind, fault.before, fault.after), [])
        place = fault.path, fault.scope
        return [site for site in same_edit if site.text == fault.text or (site.path, site.scope) == place]

    def distance(fault: Fault, site: Fault) -> tuple[bool | int, ...]:
        return (
            site.text != fault.text,
            site.path != fault.path,
            site.path.split("/")[:2] != fault.path.split("/")[:2],
            Path(site.path).name != Path(fault.path).name,
            site.scope != fault.scope,
            site.column != fault.column,
            abs(site.line - fault.line),
        )

    return [min(candidates(fault), key=partial(distance, fault), default=None) for fault in faults]


def package_folders(root: Path) -> list[str]:
    """Return the folders of the packages that ``pyproject.toml`` puts into the wheel, sorted."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])


def package_sites(root: Path, package: str) -> list[Fault]:
    """Return every fault that can be made in one package, by file and position."""
    return [
        fault
        for path in _modules(root, package)
        for fault in sites_of(path.relative_to(root).as_posix(), path.read_bytes())
    ]


def sites_of(path: str, source: bytes) -> list[Fault]:
    """Return every fault that can be made in one source file, by position."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return sorted(finder.faults, key=_position)


class _Finder(ast.NodeVisitor):
    """Collects the faults of one file; annotations, f-strings and type-checking blocks are left out."""

    def __init__(self, path: str, source: bytes) -> None:
        self.faults: list[Fault] = []
        self._path = path
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._scope: list[str] = []
        self._own = (0, 0)  # lines of the statement being visited, without a nested body

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        around = self._own
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        last = node.end_lineno or node.lineno
        if body:
            inner = body[0].pattern if isinstance(body[0], ast.match_case) else body[0]
            last = max(node.lineno, inner.lineno - 1)
        self._own = (node.lineno, last)
        super().visit(node)
        self._own = around

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, node.args):
            self.visit(part)
        self._scope.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._scope.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()

    def visit_arg(self, node: ast.arg) -> None:
        """Skip it: an argument holds nothing but its annotation."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip it: until Python 3.12 the positions inside an f-string are wrong."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if not any(name.startswith("__") for name in names):
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        test = self._text(node.test)
        if test.endswith("TYPE_CHECKING") or test.startswith("__name__"):
            for statement in node.orelse:
                self.visit(statement)
            return
        self._add("branch", node.test, node.test, "False")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sign, turned = TURNED[type(node.ops[0])]
        right = node.comparators[0]
        left, middle, end = self._end(node.left), self._start(right), self._end(node)
        between = self._source[left:middle].decode()
        # Anything beside the operator, as a comment, could hold its text a second time.
        if between.strip("() \n\\") == sign:
            parts = self._source[self._start(node) : left].decode(), self._source[middle:end].decode()
            after = between.replace(sign, turned).join(parts)
            self._add("comparison", node, node, after)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) in (int, float):
            self._add("constant", node, node, repr(node.value + 1))  # type: ignore[operator]

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in SYMMETRIC and not any(isinstance(argument, ast.Starred) for argument in node.args):
            for left, right in pairwise(node.args):
                if ast.dump(left) != ast.dump(right):
                    between = self._source[self._end(left) : self._start(right)].decode()
                    self._add("arguments", left, right, self._text(right) + between + self._text(left))
                    break
        self.generic_visit(node)

    def _add(self, kind: str, first: ast.expr, last: ast.expr, after: str) -> None:
        """Add the fault that replaces the text from ``first`` to ``last``."""
        self.faults.append(
            Fault(
                path=self._path,
                line=first.lineno,
                column=first.col_offset,
                scope=".".join(self._scope),
                kind=kind,
                text=self._lines[first.lineno - 1].decode().strip(),
                before=self._source[self._start(first) : self._end(last)].decode(),
                after=after,
                first=min(self._own[0], first.lineno),
                last=self._own[1],
            )
        )

    def _text(self, node: ast.expr) -> str:
        return self._source[self._start(node) : self._end(node)].decode()

    def _start(self, node: ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr) -> int:
        return self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)


def _modules(root: Path, package: str) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


def _shares(weights: list[int], count: int) -> list[int]:
    """Divide ``count`` by ``weights``: rounded down, and what is left goes to the largest remainders."""
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: shares[index] - exact[index])
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    return shares


def _compiles(root: Path, fault: Fault) -> bool:
    try:
        compile(fault.applied((root / fault.path).read_bytes()), fault.path, "exec")
    except SyntaxError:
        return False
    return True


def _position(fault: Fault) -> tuple[str, int, int, str]:
    return fault.path, fault.line, fault.column, fault.kind
