"""Objects that have what a real class has and nothing else, and that take the arguments that it takes.

A double says how a class acts; ``Checked`` stands between it and the code under test, and ends a test with
``SurfaceError`` where that code uses an attribute, a method or an argument that the real class lacks.
"""

from __future__ import annotations

import enum
import inspect
from importlib.machinery import ModuleSpec
from types import SimpleNamespace


class SurfaceError(BaseException):
    """The code under test uses what the real library does not have. No ``except Exception`` can hide it."""


class Surface:
    """The classes of a library as ``api_surface`` found them, and the doubles for them.

    Args:
        description: As ``api_surface`` returns it.
    """

    def __init__(self, description):
        self.version = description["version"]
        self.classes = description["classes"]
        self.functions = description["functions"]
        self.enums = {name: self._enum(name) for name, kind in self.classes.items() if kind["members"] is not None}
        self.calls = []  # (class, method, positional and keyword arguments by name)
        self.uses = set()  # as ``selftest_calls`` writes them: Class.method(2, keyword), Class.property, function()

    def lookup(self, kind, part, name):
        """Return an entry of a class or of one of its bases, or None."""
        for owner in (kind, *self.classes[kind]["bases"]):
            found = self.classes.get(owner, {}).get(part, {}).get(name)
            if found is not None:
                return found
        return None

    def check(self, kind, method, args, kwargs):
        """Record a call, and raise SurfaceError unless some overload takes the arguments."""
        overloads = self.lookup(kind, "methods", method)
        if overloads is None:
            raise SurfaceError(f"{kind} of {self.version} has no method {method}")
        problems = []
        for parameters in overloads:
            bound = self._bind(parameters, args, kwargs, problems)
            if bound is not None:
                self.calls.append((kind, method, bound))
                self.uses.add(_use(f"{kind}.{method}", args, kwargs))
                return
        raise SurfaceError(f"{kind}.{method} of {self.version} does not take {args} {kwargs}: {'; '.join(problems)}")

    def check_function(self, name, *args, **kwargs):
        """As ``check``, for a function of the module."""
        problems = []
        overloads = self.functions.get(name, ())
        self.uses.add(_use(name, args, kwargs))
        if all(self._bind(parameters, args, kwargs, problems) is None for parameters in overloads):
            raise SurfaceError(f"{self.version} has no function {name} that takes {args} {kwargs}: {problems}")

    def called(self, kind, method):
        """Return the arguments of every call of a method, in order."""
        return [bound for one, name, bound in self.calls if (one, name) == (kind, method)]

    def _bind(self, parameters, args, kwargs, problems):
        positional = [one for one in parameters if not one["keyword_only"]]
        if len(args) > len(positional):
            problems.append(f"{len(args)} positional arguments, takes {len(positional)}")
            return None
        bound = {one["name"]: value for one, value in zip(positional, args, strict=False)}
        names = {one["name"] for one in parameters}
        wrong = [name for name in kwargs if name not in names or name in bound]
        bound |= kwargs
        missing = [one["name"] for one in parameters if not one["optional"] and one["name"] not in bound]
        if wrong or missing:
            problems.append(f"unknown {wrong}, missing {missing}")
            return None
        for one in parameters:
            if one["name"] in bound and not self._fits(one["type"], bound[one["name"]]):
                problems.append(f"{one['name']} is no {one['type']}: {bound[one['name']]!r}")
                return None
        return bound

    def _fits(self, kind, value):  # noqa: PLR0911 - one return a kind of type
        if kind in self.enums:
            return isinstance(value, self.enums[kind])
        if kind == "str":
            return isinstance(value, str)
        if kind == "bool":
            return isinstance(value, bool)
        if kind == "int":
            return isinstance(value, int) and not isinstance(value, bool)
        if kind == "typing.SupportsInt":
            return hasattr(value, "__int__")
        if kind in ("typing_extensions.Buffer", "buffer"):
            return isinstance(value, bytes) or getattr(value, "_kind", "") == "IHostMemory"
        if kind in ("tuple", "list"):
            return isinstance(value, {"tuple": tuple, "list": list}[kind])
        if kind == "Dims" or kind.startswith(("collections.abc.Sequence", "list[", "List[")):
            return isinstance(value, (tuple, list))
        if kind in self.classes:
            own = getattr(value, "_kind", None)
            return own == kind or (own is not None and kind in self.classes[own]["bases"])
        return True

    def _enum(self, name):
        surface = self

        class Meta(enum.EnumMeta):
            def __getattr__(cls, member):
                if member.startswith("_"):
                    raise AttributeError(member)
                raise SurfaceError(f"{name} of {surface.version} has no member {member}")

        class Base(enum.Enum, metaclass=Meta):
            def __int__(self):
                return self.value

        return Base(name.replace(".", "_"), self.classes[name]["members"])


def _use(name, args, kwargs):
    return f"{name}({', '.join([*([str(len(args))] if args else []), *sorted(kwargs)])})"


class Checked:
    """An object of a real class, as far as the code under test can tell.

    Args:
        surface: Where the class is described.
        kind: Its name.
        acts: The double: what it lacks raises SurfaceError as well, for then a test does not know what it tests.
    """

    def __init__(self, surface, kind, acts):
        for name in vars(type(acts)):
            if not name.startswith("_") and not (
                surface.lookup(kind, "methods", name) or surface.lookup(kind, "properties", name) is not None
            ):
                raise SurfaceError(f"the double of {kind} invents {name}")
        self.__dict__.update(_surface=surface, _kind=kind, _acts=acts)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        surface, kind, acts = self._surface, self._kind, self._acts
        if surface.lookup(kind, "methods", name) is not None:

            def call(*args, **kwargs):
                surface.check(kind, name, args, kwargs)
                if not hasattr(acts, name):
                    raise SurfaceError(f"the double of {kind} does not act {name}")
                return getattr(acts, name)(*args, **kwargs)

            return call
        if surface.lookup(kind, "properties", name) is None:
            raise SurfaceError(f"{kind} of {surface.version} has no attribute {name}")
        if not hasattr(acts, name):
            raise SurfaceError(f"the double of {kind} does not have {name}")
        surface.uses.add(f"{kind}.{name}")
        return getattr(acts, name)

    def __setattr__(self, name, value):
        if not self._surface.lookup(self._kind, "properties", name):
            raise SurfaceError(f"{self._kind} of {self._surface.version} has no attribute {name} that can be set")
        self._surface.uses.add(f"{self._kind}.{name}")
        setattr(self._acts, name, value)

    def __bytes__(self):
        return bytes(self._acts)


class CheckedClass:
    """A real class, to be called and to be asked for its static methods and nested enums."""

    def __init__(self, surface, kind, make):
        self.__dict__.update(_surface=surface, _kind=kind, _make=make)

    def __call__(self, *args, **kwargs):
        self._surface.check(self._kind, "__init__", args, kwargs)
        return Checked(self._surface, self._kind, self._make(*args, **kwargs))

    def __getattr__(self, name):
        surface, kind = self._surface, self._kind
        if f"{kind}.{name}" in surface.enums:
            return surface.enums[f"{kind}.{name}"]
        if name not in surface.classes[kind].get("static_methods", ()):
            raise SurfaceError(f"class {kind} of {surface.version} has no {name}")

        def call(*args, **kwargs):
            surface.check(kind, name, args, kwargs)
            return Checked(surface, kind, getattr(self._make, name)(*args, **kwargs))

        return call


def subclassable(surface, kind):
    """Return a class that the code under test derives from, as from the real one, which C++ calls back."""

    class Meta(type):
        def __getattr__(cls, name):
            if f"{kind}.{name}" in surface.enums:
                return surface.enums[f"{kind}.{name}"]
            raise SurfaceError(f"class {kind} of {surface.version} has no {name}")

    class Base(metaclass=Meta):
        _kind = kind

        def __init__(self):
            self.made = True

        def __init_subclass__(cls):
            for name, value in vars(cls).items():
                if name.startswith("_") or not inspect.isfunction(value):
                    continue
                overloads = surface.lookup(kind, "methods", name)
                own = len(inspect.signature(value).parameters) - 1
                if overloads is None or own != len(overloads[0]):
                    raise SurfaceError(f"{kind} of {surface.version} calls no method {name} with {own} arguments")

    return Base


def module(name, contents):
    """Return what stands for a module; an unknown name raises SurfaceError."""

    class Module(SimpleNamespace):
        def __getattr__(self, attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            raise SurfaceError(f"{name} has no {attribute}")

    return Module(__name__=name, __spec__=ModuleSpec(name, None), **contents)
