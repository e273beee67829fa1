"""Write down what a network does: run it once, note every operation.

Symbolic tracing gives up where the code branches on a size or asks whether something is a tensor.
`torch.export` copes, but turns every size into a constant, so that a `view` that follows the number
of channels can't be told from one that doesn't. Here the network simply runs, on real tensors, and
each operation is written down as a node of a `torch.fx.Graph` when it happens.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from compressor.calls import first_tensor
from compressor.graph.counted import Tracked, plain, tracked
from compressor.graph.interpreter import LabelInterpreter, function_name, nested
from compressor.graph.layer_rules import LAYERS, fixed_layer
from compressor.graph.module_rules import is_leaf, rule_for

_READS_VALUES = frozenset(
    """__bool__ __int__ __float__ __complex__ __index__ __array__ item tolist numpy is_nonzero equal
    allclose""".split()  # noqa: SIM905
)


class NotFollowed(Exception):
    """A module does something that can't be followed: it has to be looked at from outside.

    Attributes:
        module: the innermost module that was running.
        reason: for the report.
    """

    def __init__(self, module: nn.Module, reason: str) -> None:
        super().__init__(reason)
        self.module, self.reason = module, reason


def size(x: Tensor, axis: int) -> int:
    """Return the size of a tensor along an axis: the function of the nodes that stand for sizes."""
    return x.shape[axis]


class Trace(TorchFunctionMode):
    """Run a network under this mode and its hooks; every operation goes to the interpreter.

    Args:
        model: the network, in eval mode.
        run: gets every node and its result, in order of execution.
        opaque: classes of modules that are not looked into -> why.
    """

    def __init__(
        self, model: nn.Module, run: LabelInterpreter, opaque: Mapping[type[nn.Module], str]
    ) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self._run, self._opaque = run, opaque
        self._nodes: Any = WeakTensorKeyDictionary()
        self._known = _tensors_of(model)
        self._names = {module: name for name, module in model.named_modules()}
        self._model = model
        self._stack: list[nn.Module] = [model]
        self._inside: nn.Module | None = None  # the leaf that is running
        self._call: tuple[Any, Any] = ((), {})  # with what

    def run(self, example: Tensor) -> None:
        """Run the network on one input.

        Raises:
            NotFollowed: a module has to become opaque.
        """
        with torch._C.DisableTorchFunction():
            x = self.graph.placeholder("input")
            self._nodes[example] = x
            self._run.see(x, example)
        with ExitStack() as stack:
            stack.enter_context(self._counted_attributes())
            for module in self._names:
                before = module.register_forward_pre_hook(self._enter, with_kwargs=True)
                stack.callback(before.remove)
                after = module.register_forward_hook(self._leave, with_kwargs=True)
                stack.callback(after.remove)
            with self:
                result = self._model(example)
        values = nested(result)
        self._run.see(self.graph.output(self._as_nodes(values)), values)

    def innermost(self) -> nn.Module:
        """Return the module that is running."""
        return self._inside or self._stack[-1]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*_plain(args), **_plain(kwargs))
        return result if self._inside is not None else self._note(func, args, kwargs, result)

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: Any, result: Any) -> Any:
        name = function_name(func)
        source = args[0] if args else None
        if isinstance(source, Tensor):
            if name in ("shape", "size"):
                axis = args[1] if len(args) > 1 else kwargs.get("dim")
                return self._sizes(source, axis, result)
            if getattr(func, "__name__", "") in _READS_VALUES:
                self._reads_values(args)
        values = nested(result)
        if not _holds_tensor(values) and name != "setitem":
            return result
        node = self._written(func, name, args, kwargs)
        self._see(node, result, values)
        return result

    def _written(self, func: Any, name: str, args: Any, kwargs: Any) -> fx.Node:
        node = self.graph.create_node(
            "call_function", func, self._as_nodes(args), self._as_nodes(kwargs), name
        )
        node.meta["module"] = self._names.get(self._stack[-1], "")
        return node

    def _see(self, node: fx.Node, result: Any, values: Any) -> None:
        """Hand an operation to the interpreter; the parts of its result get nodes of their own."""
        self._run.see(node, values)
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(values, (tuple, dict)):
            entries = values.items() if isinstance(values, dict) else enumerate(values)
            for key, part in entries:
                if _holds_tensor(part):
                    item = self._written(operator.getitem, "item", (node, key), {})
                    self._see(item, part, part)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._stack.append(module)
        if self._inside is None:
            with torch._C.DisableTorchFunction():
                opaque = type(module) in self._opaque
                if opaque or is_leaf(module, first_tensor(args, kwargs)):
                    self._call = self._as_nodes(args), self._as_nodes(kwargs)
                    self._inside = module

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self._stack.pop()
        if self._inside is None:
            return
        with torch._C.DisableTorchFunction():
            name, values = self._names[module], nested(result)
            if module is not self._inside:
                if type(self._inside) in self._opaque:
                    self._note_fixed_layer(name, module, first_tensor(args, kwargs), result)
                return
            self._inside = None
            node = self.graph.create_node("call_module", name, *self._call)
            if type(module) in self._opaque:
                self._note_fixed_layer(name, module, first_tensor(args, kwargs), result)
                node.meta["opaque"] = self._opaque[type(module)]
            self._see(node, result, values)

    def _note_fixed_layer(
        self, name: str, module: nn.Module, x: Tensor | None, result: Any
    ) -> None:
        if isinstance(module, LAYERS) and isinstance(result, Tensor) and x is not None:
            fixed_layer(self._run, name, module, x.shape, result.shape)

    def _as_nodes(self, value: Any) -> Any:
        """Replace tensors and tracked numbers by their nodes."""
        if isinstance(value, Tensor):
            return self._node_of(value)
        if isinstance(value, Tracked):
            return value.node
        if isinstance(value, slice):
            return slice(*(self._as_nodes(part) for part in (value.start, value.stop, value.step)))
        if isinstance(value, (tuple, list)):
            return tuple(self._as_nodes(entry) for entry in value)
        if isinstance(value, dict):
            return {key: self._as_nodes(entry) for key, entry in value.items()}
        return value

    def _node_of(self, tensor: Tensor) -> fx.Node:
        node: fx.Node | None = self._nodes.get(tensor)
        if node is None:
            if id(tensor) not in self._known:
                raise NotFollowed(self.innermost(), "it uses a tensor of unknown origin")
            with torch._C.DisableTorchFunction():
                node = self.graph.create_node("get_attr", self._known[id(tensor)])
                self._run.see(node, tensor)
            self._nodes[tensor] = node
        return node

    def _sizes(self, source: Tensor, axis: int | None, result: Any) -> Any:
        """Return a tensor's sizes, or one of them, as numbers that remember it."""
        node = self._node_of(source)

        def along(axis: int, value: int) -> Any:
            def make() -> fx.Node:
                made = self._written(size, "size", (node, axis), {})
                self._run.see_size(made, node, axis, value)
                return made

            return tracked(value, self, make)

        if axis is not None:
            return along(plain(axis) % source.dim(), result)
        return torch.Size([along(index, value) for index, value in enumerate(result)])

    def _reads_values(self, args: tuple[Any, ...]) -> None:
        """Branching on numbers that come from the picture: another picture, another branch."""
        for argument in args:
            if isinstance(argument, Tensor):
                node = self._node_of(argument)
                if self._run.sees_input(node):
                    raise NotFollowed(self.innermost(), "it branches on the values of a tensor")
                self._run.fix(node, "its values are read")

    def derived(self, function: Callable[..., Any], operands: tuple[Any, ...], value: Any) -> Any:
        """See `counted.Ledger`."""
        if self._inside is not None:
            return value

        def make() -> fx.Node:
            made = self._written(function, function_name(function), operands, {})
            self._run.see_derived(made, value)
            return made

        return tracked(value, self, make)

    def compared(self, left: Tracked, right: Any) -> None:
        """See `counted.Ledger`."""
        if self._inside is not None:
            return
        with torch._C.DisableTorchFunction():
            self._run.compare(left.node, right.node if isinstance(right, Tracked) else right)

    def lost(self, number: Tracked) -> None:
        """See `counted.Ledger`."""
        if self._inside is not None:
            return
        with torch._C.DisableTorchFunction():
            self._run.spoil(number.node, "a number of channels is used where it can't be followed")

    @contextmanager
    def _counted_attributes(self) -> Iterator[None]:
        """Let the integers in the modules' attributes remember where they are."""
        before: list[tuple[dict[str, Any], str, Any]] = []
        for module, name in self._names.items():
            if type(module).__module__.startswith("torch.nn") or rule_for(module) is not None:
                continue
            for key, value in list(vars(module).items()):
                counted = self._counted(name, key, value)
                if counted is not value:
                    before.append((vars(module), key, value))
                    vars(module)[key] = counted
        try:
            yield
        finally:
            for attributes, key, value in before:
                attributes[key] = value

    def _counted(self, module: str, path: str, value: Any) -> Any:
        if type(value) in (list, tuple) and value and all(type(entry) is int for entry in value):
            entries = (self._counted(module, f"{path}.{i}", v) for i, v in enumerate(value))
            return type(value)(entries)
        if type(value) is not int:
            return value

        def make() -> fx.Node:
            made = self._written(getattr, "attribute", (module, path), {})
            self._run.see_attribute(made, module, path, value)
            return made

        return tracked(value, self, make)


def _tensors_of(model: nn.Module) -> dict[int, str]:
    """Return id -> qualified name of every tensor that a module has as attribute."""
    found: dict[int, str] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        owned = {**vars(module), **module._parameters, **module._buffers}
        for key, value in owned.items():
            if isinstance(value, Tensor):
                found.setdefault(id(value), prefix + key)
    return found


def _plain(value: Any) -> Any:
    """Return arguments with Python's own numbers in place of tracked ones."""
    if isinstance(value, Tracked):
        return plain(value)
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    if type(value) in (tuple, list):
        return type(value)(_plain(entry) for entry in value)
    if isinstance(value, torch.Size):
        return torch.Size([_plain(entry) for entry in value])
    if type(value) is dict:
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(entry) for entry in value)
    if isinstance(value, dict):
        return any(_holds_tensor(entry) for entry in value.values())
    return isinstance(value, Tensor)
