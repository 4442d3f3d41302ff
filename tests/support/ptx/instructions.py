# SPDX-License-Identifier: Apache-2.0
"""One instruction of PTX -> one statement of C++, for the instructions that NVRTC makes of our kernels and of CuPy's.

Source: the PTX ISA, https://docs.nvidia.com/cuda/parallel-thread-execution/.
"""

from __future__ import annotations

import re
from collections.abc import Callable

BITS = {"pred": 1} | {f"{kind}{bits}": bits for kind in "bus" for bits in (8, 16, 32, 64)} | {"f32": 32, "f64": 64}
C_TYPES = {"f32": "float", "f64": "double", "pred": "bool"}
C_TYPES |= {f"{kind}{bits}": f"{'' if kind == 's' else 'u'}int{bits}_t" for kind in "bus" for bits in (8, 16, 32, 64)}
REGISTER_TYPES = {1: "bool", 8: "uint8_t", 16: "uint16_t", 32: "uint32_t", 64: "uint64_t", 128: "uint128_t"}
SPECIAL = {
    "%tid.x": "threadIdx.x",
    "%ctaid.x": "blockIdx.x",
    "%ntid.x": "blockDim.x",
    "%nctaid.x": "gridDim.x",
    "%laneid": "::cuda_on_host::current->lane",
}
SPACES = ("param", "global", "shared", "local", "const")
ROUNDING = {"rni": "nearbyint", "rmi": "floor", "rpi": "ceil", "rzi": "trunc"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">"}
COMPARISONS["hs"] = ">="


class Unsupported(Exception):
    """An instruction, or a form of it, that the translation does not know."""


def split_operands(text: str) -> list[str]:
    """Split at the commas that are outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", text) if part.strip()]


class Translator:
    """Translates the instructions of one kernel.

    Args:
        parameters: names of the kernel's parameters.
        symbols: C++ expressions for the addresses of shared, constant and local arrays, by name.

    Attributes:
        widths: bits of the registers, by the name without its number, or by the whole name.
    """

    def __init__(self, parameters: list[str], symbols: dict[str, str]):
        self.parameters, self.symbols = parameters, dict(symbols)
        self.widths: dict[str, int] = {}

    def statement(self, text: str) -> str:
        """Translate an instruction, without its semicolon."""
        guard = ""
        if match := re.match(r"@(!?)(%\w+)\s+(.*)", text, re.S):
            guard, text = f"if ({match[1]}{_name(match[2])}) ", match[3]
        head, _, rest = text.strip().partition(re.search(r"\s|$", text.strip())[0] or " ")
        name, *modifiers = head.split(".")
        try:
            translated = self._translate(name, modifiers, split_operands(rest))
        except (KeyError, IndexError, StopIteration, AssertionError) as error:
            raise Unsupported(text) from error
        return f"{guard}{{ {translated} }}" if guard else translated

    def _translate(self, name: str, modifiers: list[str], operands: list[str]) -> str:
        method: Callable[[list[str], list[str]], str] | None = getattr(self, f"_{name}", None)
        if method is not None:
            return method(modifiers, operands)
        kind = modifiers[-1] if modifiers else ""
        target, *sources = operands
        if name in _FLOAT and kind[0] == "f":
            _only(modifiers[:-1], {"rn", "ftz", "full", "approx"})
            values = [self.read(source, kind) for source in sources]
            return self.write(target, kind, _FLOAT[name].format(*values, f="f" if kind == "f32" else ""))
        if name in _INTEGER:
            _only(modifiers[:-1], set())
            kind = f"u{BITS[kind]}" if name in _SIGN_FREE and kind != "pred" else kind
            return self.write(target, kind, _INTEGER[name].format(*(self.read(source, kind) for source in sources)))
        template, kinds = _WORDS[name]
        _only(modifiers[:-1], set())
        values = [self.read(source, kinds.get(k, kind)) for k, source in enumerate(sources)]
        return self.write(target, "u32" if name in _COUNTS else kind, template.format(*values))

    # --- operands

    def read(self, operand: str, kind: str) -> str:
        """Return the value of an operand, as an expression of a type of PTX."""
        c_type = C_TYPES[kind]
        if operand in SPECIAL:
            return f"({c_type}){SPECIAL[operand]}"
        if operand.startswith("!"):
            return f"!{self.read(operand[1:], kind)}"
        if operand.startswith("%"):
            name = _name(operand)
            if kind in ("pred", "f32", "f64"):
                return {"pred": name, "f32": f"as_float((uint32_t){name})", "f64": f"as_double({name})"}[kind]
            return f"({c_type}){name}"
        if match := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})|0[dD]([0-9A-Fa-f]{16})", operand):
            bits = f"0x{match[1]}u" if match[1] else f"0x{match[2]}ull"
            if kind in ("f32", "f64"):
                return f"{'as_float' if kind == 'f32' else 'as_double'}({bits})"
            return f"({c_type}){bits}"
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", operand):
            number = int(operand.rstrip("U"), 0)
            return f"({c_type}){number}" if kind in ("f32", "f64") else f"({c_type})0x{number & ((1 << 64) - 1):x}ull"
        return f"({c_type}){self.symbols[operand]}"

    def write(self, operand: str, kind: str, value: str) -> str:
        """Return the statement that writes a value of a type of PTX to a register. A signed value is extended."""
        if operand == "_":
            return f"(void)({value});"
        width, name = self._width(operand), _name(operand)
        if kind == "pred":
            return f"{name} = {value};"
        if kind in ("f32", "f64"):
            return f"{name} = bits_of(({C_TYPES[kind]})({value}));"
        extended = f"(int{width}_t)" if kind[0] == "s" and width > BITS[kind] else ""
        return f"{name} = ({REGISTER_TYPES[width]}){extended}({C_TYPES[kind]})({value});"

    def _width(self, register: str) -> int:
        return self.widths[register] if register in self.widths else self.widths[register.rstrip("0123456789")]

    def _address(self, operand: str, space: str) -> str:
        base, offset = re.fullmatch(r"\[\s*(.+?)\s*(?:\+\s*(-?\w+))?\s*\]", operand).groups(default="0")
        if space == "param":
            return f"((char*)arguments[{self.parameters.index(base)}] + {int(offset, 0)})"
        if space == "shared":
            return f"shared_address({self.read(base, 'u32')} + (uint32_t){int(offset, 0)})"
        return f"(char*)({self.read(base, 'u64')} + (uint64_t){int(offset, 0)}ll)"

    # --- memory

    def _ld(self, modifiers: list[str], operands: list[str]) -> str:
        kind, space, count = _access(modifiers)
        word = REGISTER_TYPES[count * BITS[kind]]
        targets = split_operands(operands[0].strip("{}"))
        lines = [f"const {word} word = *reinterpret_cast<const {word}*>({self._address(operands[1], space)});"]
        for k, target in enumerate(targets):
            if target != "_":
                part = f"({REGISTER_TYPES[BITS[kind]]})(word >> {k * BITS[kind]})"
                lines.append(self.write(target, kind if kind[0] == "s" else f"u{BITS[kind]}", part))
        return f"{{ {' '.join(lines)} }}"

    _ldu = _ld

    def _st(self, modifiers: list[str], operands: list[str]) -> str:
        kind, space, count = _access(modifiers)
        word = REGISTER_TYPES[count * BITS[kind]]
        sources = split_operands(operands[1].strip("{}"))
        parts = (
            f"({word}){self.read(source, f'u{BITS[kind]}')} << {k * BITS[kind]}" for k, source in enumerate(sources)
        )
        return f"*reinterpret_cast<{word}*>({self._address(operands[0], space)}) = {' | '.join(parts)};"

    def _mov(self, modifiers: list[str], operands: list[str]) -> str:
        target, source = operands
        bits = BITS[modifiers[-1]]
        if source.startswith("{"):
            parts = split_operands(source.strip("{}"))
            width = bits // len(parts)
            word = REGISTER_TYPES[bits]
            joined = " | ".join(
                f"({word}){self.read(part, f'u{width}')} << {k * width}" for k, part in enumerate(parts)
            )
            return self.write(target, f"b{bits}", joined)
        if target.startswith("{"):
            parts = split_operands(target.strip("{}"))
            width, value = bits // len(parts), self.read(source, f"u{bits}")
            return " ".join(self.write(part, f"u{width}", f"({value}) >> {k * width}") for k, part in enumerate(parts))
        kind = "pred" if bits == 1 else f"b{bits}"
        return self.write(target, kind, self.read(source, kind))

    def _cvta(self, _: list[str], operands: list[str]) -> str:
        return self.write(operands[0], "u64", self.read(operands[1], "u64"))

    # --- arithmetic that has several forms

    def _mul(self, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        if kind[0] == "f":
            _only(modifiers[:-1], {"rn", "ftz"})
            return self.write(operands[0], kind, f"{self.read(operands[1], kind)} * {self.read(operands[2], kind)}")
        return self._mad(modifiers, [*operands, "0"])

    def _mad(self, modifiers: list[str], operands: list[str]) -> str:
        """Multiply and add: the low half of the product, its high half, or all of it."""
        how, kind = modifiers
        target, a, b, c = operands
        bits, wide = BITS[kind], f"{kind[0]}{min(2 * BITS[kind], 64)}"
        if how == "lo":
            kind = f"u{bits}"
            return self.write(target, kind, f"{self.read(a, kind)} * {self.read(b, kind)} + {self.read(c, kind)}")
        if how == "hi":
            c_type = C_TYPES[wide] if bits < 64 else {"u": "unsigned __int128", "s": "__int128"}[kind[0]]
            high = f"((({c_type}){self.read(a, kind)} * ({c_type}){self.read(b, kind)}) >> {bits})"
            return self.write(target, f"u{bits}", f"(uint{bits}_t){high} + {self.read(c, f'u{bits}')}")
        assert how == "wide" and bits <= 32
        product = f"({C_TYPES[wide]}){self.read(a, kind)} * ({C_TYPES[wide]}){self.read(b, kind)}"
        unsigned = f"u{2 * bits}"
        return self.write(target, unsigned, f"({C_TYPES[unsigned]})({product}) + {self.read(c, unsigned)}")

    def _div(self, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        _only(modifiers[:-1], {"rn", "ftz", "full", "approx"})
        return self.write(operands[0], kind, f"{self.read(operands[1], kind)} / {self.read(operands[2], kind)}")

    def _neg(self, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        if kind[0] == "f":
            return self.write(operands[0], kind, f"-{self.read(operands[1], kind)}")
        kind = f"u{BITS[kind]}"
        return self.write(operands[0], kind, f"0 - {self.read(operands[1], kind)}")

    def _abs(self, modifiers: list[str], operands: list[str]) -> str:
        kind, value = modifiers[-1], self.read(operands[1], modifiers[-1])
        f = "__builtin_fabsf" if kind == "f32" else "__builtin_fabs"
        return self.write(operands[0], kind, f"{f}({value})" if kind[0] == "f" else f"{value} < 0 ? -{value} : {value}")

    def _min(self, modifiers: list[str], operands: list[str], name: str = "min") -> str:
        kind = modifiers[-1]
        a, b = (self.read(operand, kind) for operand in operands[1:])
        if kind[0] == "f":
            return self.write(operands[0], kind, f"__builtin_f{name}{'f' if kind == 'f32' else ''}({a}, {b})")
        return self.write(operands[0], kind, f"{a} {'<' if name == 'min' else '>'} {b} ? {a} : {b}")

    def _max(self, modifiers: list[str], operands: list[str]) -> str:
        return self._min(modifiers, operands, "max")

    def _not(self, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        return self.write(operands[0], kind, f"{'!' if kind == 'pred' else '~'}{self.read(operands[1], kind)}")

    def _shl(self, modifiers: list[str], operands: list[str]) -> str:
        kind = f"u{BITS[modifiers[-1]]}"
        value, count = self.read(operands[1], kind), self.read(operands[2], "u32")
        return self.write(operands[0], kind, f"shift_left({value}, {count})")

    def _shr(self, modifiers: list[str], operands: list[str]) -> str:
        kind = modifiers[-1]
        value, count = self.read(operands[1], kind), self.read(operands[2], "u32")
        return self.write(operands[0], kind, f"shift_right({value}, {count})")

    def _shf(self, modifiers: list[str], operands: list[str]) -> str:
        a, b, count = (self.read(operand, "u32") for operand in operands[1:])
        count = f"(({count}) & 31)" if "wrap" in modifiers else f"(({count}) > 32 ? 32 : ({count}))"
        side = {"l": "left", "r": "right"}[modifiers[0]]
        return self.write(operands[0], "u32", f"funnel_{side}({a}, {b}, {count})")

    def _lop3(self, _: list[str], operands: list[str]) -> str:
        a, b, c = (self.read(operand, "u32") for operand in operands[1:4])
        return self.write(operands[0], "u32", f"lop3({a}, {b}, {c}, {operands[4]})")

    def _bfe(self, modifiers: list[str], operands: list[str]) -> str:
        name = {"u32": "extract_bits", "s32": "extract_signed_bits"}[modifiers[-1]]
        values = ", ".join(self.read(operand, "u32") for operand in operands[1:])
        return self.write(operands[0], modifiers[-1], f"{name}({values})")

    def _bfind(self, modifiers: list[str], operands: list[str]) -> str:
        assert modifiers[-1] == "u32"
        bit = f"highest_bit({self.read(operands[1], 'u32')})"
        return self.write(operands[0], "u32", f"{bit} == ~0u ? ~0u : 31 - {bit}" if "shiftamt" in modifiers else bit)

    def _setp(self, modifiers: list[str], operands: list[str]) -> str:
        comparison, *combine, kind = modifiers
        a, b = self.read(operands[1], kind), self.read(operands[2], kind)
        are_numbers = f"({a} == {a} && {b} == {b})"
        if comparison in ("num", "nan"):
            value = are_numbers if comparison == "num" else f"!{are_numbers}"
        elif kind[0] == "f" and comparison == "ne":
            value = f"({a} < {b} || {a} > {b})"  # false for NaN, unlike the operator of C++
        elif comparison in COMPARISONS:
            value = f"({a} {COMPARISONS[comparison]} {b})"
        else:
            value = f"(!{are_numbers} || {a} {COMPARISONS[comparison.removesuffix('u')]} {b})"  # true for NaN
        combine = [name for name in combine if name != "ftz"]
        if combine:
            operator = {"and": "&&", "or": "||", "xor": "!="}[combine[0]]
            value = f"{value} {operator} {self.read(operands[3], 'pred')}"
        assert "|" not in operands[0]
        return self.write(operands[0], "pred", value)

    def _selp(self, modifiers: list[str], operands: list[str]) -> str:
        kind = f"b{BITS[modifiers[-1]]}"
        a, b, chosen = *(self.read(operand, kind) for operand in operands[1:3]), self.read(operands[3], "pred")
        return self.write(operands[0], kind, f"{chosen} ? {a} : {b}")

    def _cvt(self, modifiers: list[str], operands: list[str]) -> str:
        *how, to, of = (modifier for modifier in modifiers if modifier != "ftz")
        value = self.read(operands[1], of)
        if how and how[0] in ROUNDING:
            value = f"__builtin_{ROUNDING[how[0]]}({value})"
        else:
            _only(how, {"rn"} if to[0] == "f" else set())
        return self.write(operands[0], to, f"({C_TYPES[to]}){value}")

    # --- control flow, barriers and collectives

    def _bra(self, _: list[str], operands: list[str]) -> str:
        return f"goto {_name('%' + operands[0])};"

    def _ret(self, *_: list[str]) -> str:
        return "return;"

    _exit = _ret

    def _bar(self, modifiers: list[str], operands: list[str]) -> str:
        if modifiers == ["warp", "sync"]:
            return f"__syncwarp({self.read(operands[0], 'u32')});"
        assert modifiers == ["sync"] and operands == ["0"]
        return "__syncthreads();"

    def _barrier(self, modifiers: list[str], operands: list[str]) -> str:
        return self._bar(modifiers[:1], operands)

    def _shfl(self, modifiers: list[str], operands: list[str]) -> str:
        assert modifiers[0] == "sync"
        name = {"bfly": "_xor", "idx": "", "down": "_down", "up": "_up"}[modifiers[1]]
        target, _, is_inside = operands[0].partition("|")
        value, lane, segment, mask = (self.read(operands[k], kind) for k, kind in enumerate(_SHUFFLE, start=1))
        lines = [f'if ({segment} != {0 if name == "_up" else 31}u) ::cuda_on_host::fail("shuffle of part of a warp");']
        lines.append(self.write(target, "u32", f"__shfl{name}_sync({mask}, {value}, {lane})"))
        return " ".join([*lines, f"{_name(is_inside)} = true;"] if is_inside else lines)

    def _vote(self, modifiers: list[str], operands: list[str]) -> str:
        assert modifiers[0] == "sync" and modifiers[1] in ("any", "all", "ballot")
        kind = "u32" if modifiers[1] == "ballot" else "pred"
        predicate, mask = self.read(operands[1], "pred"), self.read(operands[2], "u32")
        return self.write(operands[0], kind, f"__{modifiers[1]}_sync({mask}, {predicate})")

    def _trap(self, *_: list[str]) -> str:
        return '::cuda_on_host::fail("trap");'


_SHUFFLE = ("u32", "s32", "u32", "u32")  # value, lane, segment, mask
_FLOAT = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "fma": "__builtin_fma{f}({0}, {1}, {2})",
    "sqrt": "__builtin_sqrt{f}({0})",
    "rsqrt": "1 / __builtin_sqrt{f}({0})",
    "rcp": "1 / {0}",
    "copysign": "__builtin_copysign{f}({1}, {0})",
}
_INTEGER = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "rem": "{0} % {1}", "and": "{0} & {1}", "or": "{0} | {1}",
    "xor": "{0} ^ {1}", "cnot": "{0} == 0",
}  # fmt: skip
_SIGN_FREE = ("add", "sub", "and", "or", "xor")  # signed numbers would overflow
# Templates of other operations, and the types of sources that differ from the type of the instruction.
_WORDS: dict[str, tuple[str, dict[int, str]]] = {
    "prmt": ("permute_bytes({0}, {1}, {2})", {}),
    "bfi": ("insert_bits({0}, {1}, {2}, {3})", {2: "u32", 3: "u32"}),
    "brev": ("reverse_bits({0})", {}),
    "popc": ("__builtin_popcountll({0})", {}),
    "clz": ("leading_zeros({0})", {}),
}
_COUNTS = ("popc", "clz")  # the result has 32 bits, whatever the source has


def _name(register: str) -> str:
    return register[1:].replace("$", "_").replace(".", "_")


def _only(modifiers: list[str], allowed: set[str]) -> None:
    if set(modifiers) - allowed:
        raise Unsupported(f"modifiers {modifiers}")


def _access(modifiers: list[str]) -> tuple[str, str, int]:
    """Return the type, the space and the number of words of a load or store."""
    *how, kind = (modifier.split("::")[0] for modifier in modifiers)
    space = next((modifier for modifier in how if modifier in SPACES), "generic")
    count = next((int(modifier[1]) for modifier in how if modifier in ("v2", "v4")), 1)
    caches = {modifier for modifier in how if modifier[:2] in ("L1", "L2")}
    _only(how, {"nc", "volatile", "relaxed", "weak", "ca", "cg", "cs", "gpu", "cta", "v2", "v4", *SPACES, *caches})
    return kind, space, count
