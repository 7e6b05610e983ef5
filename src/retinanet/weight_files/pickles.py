"""Pickles, read without running them: a pickle is a program; here each of its calls gives a plain value or nothing."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from retinanet.weight_files.inert import Array, DType, ForbiddenError, Unused, call, named, put

MOST_OPCODES = 500_000
"""A state of a thousand tensors, its optimizer's and a trainer's log take a third."""
LONGEST_NUMBER = 512
"""Bits of a whole number."""
GROWTH = 4, 2**20
"""Calls may copy this many times the bytes read so far, and so many more."""


def load(stream: Any, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle that begins at ``stream``'s place, of any protocol; leaves the stream behind it.

    Sets become lists, mappings dicts, strings of Python 2 Latin-1 text.

    Args:
        stream: bytes to read from, with ``read``, ``readline`` and ``tell``.
        persistent: makes a value of a persistent id (torch's storages).

    Raises:
        ForbiddenError: it names something that is not on the lists of :mod:`retinanet.weight_files.inert`.
        ValueError, TypeError, LookupError, ...: it is damaged.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    begin, copied = stream.tell(), 0

    def marked() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    def called(function: Any, args: Any) -> Any:
        """A copy of a list that is remembered costs the file three bytes."""
        nonlocal copied
        copied += sum(len(arg) for arg in args if isinstance(arg, list | tuple | dict | str | bytes))
        if copied > GROWTH[0] * (stream.tell() - begin) + GROWTH[1]:
            raise ValueError("it copies itself again and again")
        return call(function, args)

    for number, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if number > MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES} operations")
        match opcode.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                marks.append(stack)
                stack = []
            case "POP":
                stack.pop() if stack else marked()
            case "POP_MARK":
                marked()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(arg or 0)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(arg or 0)])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "LIST":
                items = marked()  # before stack.append is looked up: it is another list afterwards
                stack.append(items)
            case "TUPLE" | "FROZENSET":
                items = marked()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                if len(stack) < count:
                    raise ValueError("a tuple lacks values")
                stack[-count:] = [tuple(stack[-count:])]
            case "DICT":
                items = marked()
                stack.append(_pairs({}, items))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                items = marked()
                _extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _pairs(stack[-1], [key, value])
            case "SETITEMS":
                items = marked()
                _pairs(stack[-1], items)
            case "GLOBAL":
                stack.append(named(*str(arg).split(" ", 1)))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                stack.append(named(module, last))
            case "REDUCE" | "NEWOBJ":
                args = stack.pop()
                stack.append(called(stack.pop(), args))
            case "NEWOBJ_EX":
                _, args = stack.pop(), stack.pop()
                stack.append(called(stack.pop(), args))
            case "OBJ":
                function, *args = marked()
                stack.append(called(function, tuple(args)))
            case "INST":
                args = marked()
                stack.append(called(named(*str(arg).split(" ", 1)), tuple(args)))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Unused | Array | DType):
                    stack[-1].build(state)
            case "BINPERSID" if persistent:
                stack.append(persistent(stack.pop()))
            case "BYTEARRAY8":
                stack.append(bytes(arg))  # type: ignore[arg-type]
            case _ if opcode.arg is not None and opcode.stack_after and opcode.name[:3] not in ("EXT", "PER"):
                if (
                    isinstance(arg, int) and arg.bit_length() > LONGEST_NUMBER
                ):  # slow to hash, for a key again and again
                    raise ValueError("a number of very many digits")
                stack.append(arg)  # numbers, text and bytes
            case _:
                raise ForbiddenError(f"the operation {opcode.name}")
    return stack[-1]


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is list:
        target.extend(items)
    elif not isinstance(target, Unused):
        raise ValueError("items are added to what is not a list")


def _pairs(target: Any, items: list[Any]) -> Any:
    if type(target) is dict:
        for key, value in zip(items[::2], items[1::2], strict=True):
            put(target, key, value)
    elif not isinstance(target, Unused):
        raise ValueError("items are added to what is not a mapping")
    return target
