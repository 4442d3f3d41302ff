# SPDX-License-Identifier: Apache-2.0
"""The text of a PTX module -> C++ text, in which the registers of a kernel are local variables.

A kernel of the C++ text takes the addresses of its arguments, as a driver passes them. It is registered like a kernel
of the emulation (``cuda_emulation/cuda_on_host.hpp``), so that the run time and the checker of the emulation run it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .instructions import BITS, C_TYPES, REGISTER_TYPES, Translator, Unsupported

PRELUDE = Path(__file__).with_name("prelude.hpp")

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DYNAMIC_SHARED = re.compile(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[\]\s*;")
_STATIC_SHARED = re.compile(r"^\s*(?:\.\w+\s+)*?\.shared\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\]\s*;", re.MULTILINE)
_CONSTANT = re.compile(
    r"\.(?:const|global)\s+\.align\s+(\d+)\s+\.(b8|b32|b64|u32|u64|f64)\s+([\w$]+)\[(\d+)\]\s*(?:=\s*\{([^}]*)\})?\s*;"
)
_ENTRY = re.compile(r"\.visible\s+\.entry\s+([\w$]+)\s*\((.*?)\)(.*?)\{(.*?)^\}", re.DOTALL | re.MULTILINE)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.(?!align)\w+\s+)?(?:\.align\s+\d+\s+)?)?"
    r"([\w$]+)(?:\[(\d+)\])?"
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_]+)<(\d+)>;")
_REGISTER = re.compile(r"\.reg\s+\.(\w+)\s+(%\w+);")
_LOCAL = re.compile(r"\.local\s+\.align\s+\d+\s+\.b8\s+(\w+)\[(\d+)\];")
_LABEL = re.compile(r"(\$?\w+):")


@dataclass(frozen=True)
class EntryPoint:
    """A kernel of a module.

    Attributes:
        name: name of the kernel.
        sizes: bytes of each argument.
        max_threads: largest number of threads of a block.
        text: the C++ function, and its registration.
    """

    name: str
    sizes: tuple[int, ...]
    max_threads: int
    text: str


class PtxModule:
    """A translated module.

    Args:
        ptx: text of the module.
        signatures: for each kernel and parameter, whether the parameter is a pointer to numbers that the kernel writes
            ("p"), a pointer to const ("c") or a value ("v"). The checker finds the arrays of a launch by it. Without
            signatures, all parameters are values.

    Attributes:
        static_shared: bytes of static shared memory of a block.
        kernels: the kernels by name.
        text: the C++ text.

    Raises:
        Unsupported: for an instruction that the translation does not know.
    """

    def __init__(self, ptx: str, signatures: dict[str, str] | None = None):
        ptx = _COMMENT.sub(" ", ptx)
        self.static_shared = 0
        symbols = dict.fromkeys(_DYNAMIC_SHARED.findall(ptx), "DYNAMIC_BASE")
        for alignment, name, size in _STATIC_SHARED.findall(ptx):
            self.static_shared = -(-self.static_shared // int(alignment)) * int(alignment)
            symbols[name] = f"(STATIC_BASE + {self.static_shared}u)"
            self.static_shared += int(size)
        lines = [f'#include "{PRELUDE}"']
        for alignment, kind, name, count, values in _CONSTANT.findall(ptx):
            numbers = re.sub(r"0[dD]([0-9A-Fa-f]{16})", r"as_double(0x\1ull)", values or "0")
            c_name = name.replace("$", "_")
            lines.append(f"alignas({alignment}) static {C_TYPES[kind]} {c_name}[{count}] = {{{numbers}}};")
            symbols[name] = f"(uint64_t)(uintptr_t){c_name}"
        lines += _shared_memory(max(self.static_shared, 16))
        self.kernels: dict[str, EntryPoint] = {}
        for number, parts in enumerate(_ENTRY.findall(ptx)):
            kernel = _entry_point(number, parts, symbols, (signatures or {}).get(parts[0]))
            self.kernels[kernel.name] = kernel
            lines.append(kernel.text)
        self.text = "\n".join([*lines, ""])


def _shared_memory(static_bytes: int) -> list[str]:
    return [
        f"alignas(16) static thread_local unsigned char static_shared_memory[{static_bytes}];",
        "static inline char* shared_address(uint32_t address) {",
        "    if (address < DYNAMIC_BASE)",
        "        return reinterpret_cast<char*>(opaque(static_shared_memory)) + (address - STATIC_BASE);",
        "    return reinterpret_cast<char*>(::cuda_on_host::dynamic_shared) + (address - DYNAMIC_BASE);",
        "}",
    ]


def _entry_point(
    number: int, parts: tuple[str, str, str, str], symbols: dict[str, str], signature: str | None
) -> EntryPoint:
    name, parameters, attributes, body = parts
    found = _PARAMETER.findall(parameters)
    sizes = tuple(int(length) if length else BITS[kind] // 8 for kind, _, length in found)
    translator = Translator([parameter for _, parameter, _ in found], symbols)
    statements = list(_statements(body, translator))
    bound = re.search(r"\.maxntid\s+(\d+)", attributes)
    max_threads = int(bound[1]) if bound else 1024
    kinds = signature or "v" * len(sizes)
    assert len(kinds) == len(sizes), f"{name} has {len(sizes)} parameters"
    described = (
        f"{{'v', 's', {size}}}" if kind == "v" else f"{{'{kind}', 'v', 0}}" for kind, size in zip(kinds, sizes)
    )
    lines = [f"static void kernel_{number}(void** arguments) {{", *statements, "}"]
    lines.append(f"static const ::cuda_on_host::Parameter parameters_{number}[] = {{{', '.join(described) or '{}'}}};")
    lines.append(
        f'static ::cuda_on_host::Registration registration_{number}({{"{name}", &kernel_{number}, {len(sizes)}, '
        f"parameters_{number}, {max_threads}}});"
    )
    return EntryPoint(name, sizes, max_threads, "\n".join(lines))


def _statements(body: str, translator: Translator) -> Iterator[str]:
    """Yield the declarations of the registers of a kernel, then its statements."""
    declarations, statements = [], []
    for line in map(str.strip, body.split("\n")):
        if not line or line.startswith((".loc", ".pragma", ".file", ".shared", "{", "}")):
            continue
        if array := _LOCAL.fullmatch(line):
            declarations.append(f"alignas(16) unsigned char {array[1]}[{array[2]}];")
            translator.symbols[array[1]] = f"(uint64_t)(uintptr_t){array[1]}"
        elif registers := _REGISTERS.fullmatch(line):
            kind, prefix, count = registers.groups()
            translator.widths[prefix] = BITS[kind]
            declarations += [f"{REGISTER_TYPES[BITS[kind]]} {prefix[1:]}{k} = 0;" for k in range(int(count))]
        elif register := _REGISTER.fullmatch(line):
            # Several blocks in braces may declare a register of the same name; they never use it at the same time.
            bits = BITS[register[1]]
            if register[2] not in translator.widths:
                declarations.append(f"{REGISTER_TYPES[bits]} {register[2][1:]} = 0;")
            assert translator.widths.setdefault(register[2], bits) == bits
        elif label := _LABEL.fullmatch(line):
            statements.append(f"{label[1].replace('$', '_')}:;")
        elif line.endswith(";"):
            statements.append(translator.statement(line[:-1]))
        else:
            raise Unsupported(line)
    yield from declarations
    yield from statements
