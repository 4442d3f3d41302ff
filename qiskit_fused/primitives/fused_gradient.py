# SPDX-License-Identifier: Apache-2.0
"""What the gradients of estimators and of samplers share: where their options come from, and how options change."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.providers import Options

from qiskit_fused.execution.devices import check_device
from qiskit_fused.options.fused_options import FusedOptions
from qiskit_fused.options.gradient_options import GradientOptions, split_options

_BASES = {"estimator": BaseEstimatorV2, "sampler": BaseSamplerV2}


class FusedGradient:
    """A gradient with options of the engine. Without options of its own, it uses the options of its primitive."""

    _own_options: FusedOptions | None  # None: the options of the primitive, also after later changes of them
    _primitive: Any  # a `FusedEstimator` or `FusedSampler`, or None
    _default_options: Options

    def _take_options(
        self, primitive: Any, options: FusedOptions | Mapping[str, Any] | Options | None, keywords: Mapping[str, Any]
    ) -> Options:
        """Set the options of the engine, and return all other options.

        Args:
            primitive: the fused primitive of the gradient; None if it has none.
            options: `FusedOptions`, or options of both kinds.
            keywords: single options of the engine, which override ``options``.

        Raises:
            TypeError: for an unknown option, or for a name that looks like a mistyped option.
            ValueError: for a bad value of an option.
            RuntimeError: for a device that cannot be used.
        """
        changes: dict[str, Any] = {**keywords}
        result_options: dict[str, Any] = {}
        base = None if primitive is None else primitive._options
        has_own_options = base is None or isinstance(options, FusedOptions)
        if isinstance(options, FusedOptions):
            base = options
        elif options is not None:
            entries, result_options = split_options(options if isinstance(options, Mapping) else options.__dict__)
            changes = entries | changes
        self._primitive, self._own_options = primitive, None
        if has_own_options or changes:
            self._own_options = FusedOptions.coerce(base, **changes)
            check_device(self._own_options)
        return Options(**result_options)

    @property
    def fused_options(self) -> FusedOptions:
        """The options of the engine, which are the gradient's own options if it has any, else the primitive's."""
        if self._own_options is not None:
            return self._own_options
        options: FusedOptions = self._primitive._options
        return options

    @property
    def options(self) -> GradientOptions:
        """The options of the engine, and all other options. ``gradient.options.dtype = "complex64"`` changes one.

        A gradient that used the options of its primitive has its own options from the first change on, and the
        primitive keeps its options.
        """
        return GradientOptions(self._default_options, lambda: self.fused_options, self.update_default_options)

    def update_default_options(self, **options: Any) -> None:
        """Change options by name. Names that are no options of the engine are kept for ``result.options``.

        Raises:
            TypeError: for a name that looks like a mistyped option.
            ValueError: for a bad value of an option. No option is changed then.
            RuntimeError: for a device that cannot be used.
        """
        changes, result_options = split_options(options)
        changed = self._with_options(changes)
        self._default_options.update_options(**result_options)
        if changes:
            self._own_options = changed

    def _with_options(self, changes: Mapping[str, Any]) -> FusedOptions:
        """Return a copy of the engine's options with some options changed and checked."""
        changed = copy(self.fused_options)
        for name, value in changes.items():
            setattr(changed, name, value)
        if changes:
            check_device(changed)
        return changed

    def _job_options(self, options: Mapping[str, Any]) -> tuple[FusedOptions, Options]:
        """Return the engine's options of a job, and the options of its result, where a call gives some options.

        Raises:
            TypeError, ValueError, RuntimeError: as `update_default_options`.
        """
        engine_options = self._with_options(split_options(options)[0])
        result_options = copy(self._default_options)
        result_options.update_options(**options)
        return engine_options, result_options


def check_derivative_type(derivative_type: Any) -> None:
    """Raise a ValueError for an object that is no ``DerivativeType`` of either library."""
    names = ("REAL", "IMAG", "COMPLEX")
    if getattr(derivative_type, "name", None) not in names:
        allowed = ", ".join(f"DerivativeType.{name}" for name in names)
        raise ValueError(f"derivative_type is {derivative_type!r:.60}; allowed: {allowed}.")


def check_primitive(primitive: Any, kind: str) -> None:
    """Raise a TypeError for an object that is no primitive of a kind, "estimator" or "sampler", and not None."""
    article = "an" if kind[0] in "aeiou" else "a"
    name = primitive.__name__ if isinstance(primitive, type) else type(primitive).__name__
    if primitive is not None and (isinstance(primitive, type) or not hasattr(primitive, "run")):
        raise TypeError(
            f"{kind} must be {article} {kind} or None, not {name}; options go into options=... or keywords."
        )
    other = next(other for other in _BASES if other != kind)
    if isinstance(primitive, _BASES[other]) and not isinstance(primitive, _BASES[kind]):
        raise TypeError(
            f"{kind} must be {article} {kind} or None, not {name}; give a Fused{kind.capitalize()}, or use "
            f"Fused{other.capitalize()}Gradient."
        )
