"""Networks in the JSON files of ProxylessNAS (Cai, Zhu and Han, ICLR 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.core import foreign
from sartor.core.errors import DataError
from sartor.spaces._mbconv import Operation


def published(path: str | Path) -> tuple[dict[str, Any], list[Operation | None]]:
    """The network in a file of ProxylessNAS: fields of a `Plan`, and the operation of every block, None for a skip.

    Raises:
        DataError: There is no such file, or the network in it is none of these chains; says why.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no network {path}; give the path of a ProxylessNAS network as JSON")
    try:
        return _read(foreign.from_json(foreign.content(path, DataError), str(path), DataError))
    except (ValueError, LookupError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} is no ProxylessNAS network that this space holds: {reason}; take a published one"
        ) from error


def _read(content: dict[str, Any]) -> tuple[dict[str, Any], list[Operation | None]]:
    stem, head = content["first_conv"], content["feature_mix_layer"]
    _expect("the first convolution", stem, kernel_size=3, groups=1, bias=False, use_bn=True, act_func="relu6")
    _expect("the last convolution", head, kernel_size=1, groups=1, bias=False, use_bn=True, act_func="relu6")
    _expect("the classifier", content["classifier"], bias=True, use_bn=False, in_features=head["out_channels"])
    _expect("the norm", content["bn"], eps=0.001)
    first, *others = content["blocks"]
    inner = first["mobile_inverted_conv"]
    _expect("block 0", inner, in_channels=stem["out_channels"], kernel_size=3, stride=1, expand_ratio=1)
    plan = {
        "in_channels": stem["in_channels"],
        "classes": content["classifier"]["out_features"],
        "stem": stem["out_channels"],
        "stem_stride": stem["stride"],
        "first": inner["out_channels"],
        "head": head["out_channels"],
    }
    stages, operations, c = list[list[int]](), list[Operation | None](), inner["out_channels"]
    for number, block in enumerate(others, 1):
        operation, stride, width = _block(f"block {number}", block, c)
        if stride > 1 or width != c or not stages:
            stages.append([width, 0, stride])
        stages[-1][1] += 1
        operations.append(operation)
        c = width
    _expect("the last convolution", head, in_channels=c)
    return {**plan, **dict(zip(("widths", "blocks", "strides"), zip(*stages, strict=True), strict=True))}, operations


def _block(name: str, block: dict[str, Any], c: int) -> tuple[Operation | None, int, int]:
    """Operation, stride and width of a block that `c` channels enter."""
    inner = block["mobile_inverted_conv"]
    if inner["name"] == "ZeroLayer":
        if not block["shortcut"]:
            raise ValueError(f"{name} is nothing at all, without a shortcut")
        return None, 1, c
    _expect(name, inner, name="MBInvertedConvLayer", in_channels=c)
    width, stride = inner["out_channels"], inner["stride"]
    if bool(block["shortcut"]) != (stride == 1 and width == c):
        raise ValueError(f"a shortcut is there exactly where the shape stays, but not in {name}")
    return Operation(float(inner["expand_ratio"]), inner["kernel_size"]), stride, width


def _expect(who: str, layer: dict[str, Any], **values: Any) -> None:
    for name, value in values.items():
        if layer[name] != value:
            raise ValueError(f"{name} of {who} must be {value}, got {layer[name]}")
