"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence

SECONDS_PER_YEAR = 365.25 * 86_400


def format_count(number: float) -> str:
    """36700290 -> 36.7M. Three digits."""
    return _scaled(number, ("", "K", "M", "B", "T"))


def format_flops(number: float) -> str:
    """75498192 -> 75.5 MFLOPs."""
    return _scaled(number, (" ", " K", " M", " G", " T", " P", " E", " Z")) + "FLOPs"


def format_bytes(number: float) -> str:
    """Bytes: 1910000000 -> 1.91 GB, a thousand million."""
    return _scaled(number, (" ", " k", " M", " G", " T")) + "B"


def format_bool(known: bool | None) -> str:
    """None: nobody knows."""
    return {True: "yes", False: "no", None: "-"}[known]


def format_duration(seconds: float) -> str:
    """12300 -> 3 h 25 min. The two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds >= SECONDS_PER_YEAR:
        return f"{seconds / SECONDS_PER_YEAR:.1f} years"
    for unit, smaller, length in (("min", "s", 60), ("h", "min", 60), ("d", "h", 24)):
        seconds_per_smaller = {"s": 1, "min": 60, "h": 3600}[smaller]
        whole, rest = divmod(round(seconds / seconds_per_smaller), length)
        if whole < {"min": 60, "h": 24}.get(unit, whole + 1):
            break
    return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"


def format_energy(kilowatt_hours: float) -> str:
    """4321.9 -> 4,322 kWh."""
    number = f"{kilowatt_hours:,.0f}" if kilowatt_hours >= 99.5 else f"{kilowatt_hours:.3g}"
    return f"{number} kWh"


def _scaled(number: float, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if abs(number) < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g}{units[-1]}"
