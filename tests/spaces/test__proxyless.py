from __future__ import annotations

import copy
import json

import pytest

from sartor.core.errors import DataError
from sartor.spaces._mbconv import Operation
from sartor.spaces._proxyless import published


def layer(c_in, c_out, kernel, stride, expansion):
    return {
        "name": "MBInvertedConvLayer",
        **{"in_channels": c_in, "out_channels": c_out, "kernel_size": kernel, "stride": stride},
        "expand_ratio": expansion,
    }


def conv(c_in, c_out, kernel, stride):
    return {
        **{"name": "ConvLayer", "kernel_size": kernel, "stride": stride, "groups": 1, "bias": False},
        **{"in_channels": c_in, "out_channels": c_out, "use_bn": True, "act_func": "relu6"},
    }


IDENTITY, ZERO = {"name": "IdentityLayer"}, {"name": "ZeroLayer", "stride": 1}
NETWORK = {
    "name": "ProxylessNASNets",
    "bn": {"momentum": 0.1, "eps": 0.001},
    "first_conv": conv(2, 8, 3, 1),
    "blocks": [
        {"mobile_inverted_conv": layer(8, 4, 3, 1, 1), "shortcut": None},
        {"mobile_inverted_conv": layer(4, 6, 7, 2, 3), "shortcut": None},
        {"mobile_inverted_conv": ZERO, "shortcut": IDENTITY},
        {"mobile_inverted_conv": layer(6, 6, 5, 1, 4), "shortcut": IDENTITY},
        {"mobile_inverted_conv": layer(6, 10, 3, 1, 6), "shortcut": None},
    ],
    "feature_mix_layer": conv(10, 20, 1, 1),
    "classifier": {"name": "LinearLayer", "in_features": 20, "out_features": 5, "bias": True, "use_bn": False},
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "net.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_stages_and_operations(write):
    plan, operations = published(write(NETWORK))
    assert plan == {
        **{"in_channels": 2, "classes": 5, "stem": 8, "stem_stride": 1, "first": 4, "head": 20},
        **{"widths": (6, 10), "blocks": (3, 1), "strides": (2, 1)},
    }
    assert operations == [Operation(3, 7), None, Operation(4, 5), Operation(6, 3)]


def test_blocks_of_the_first_stage_may_keep_the_shape(write):
    content = copy.deepcopy(NETWORK)
    content["blocks"][1]["mobile_inverted_conv"] = layer(4, 4, 7, 1, 3)
    content["blocks"][1]["shortcut"] = IDENTITY
    content["blocks"][3]["mobile_inverted_conv"] = layer(4, 6, 5, 1, 4)
    content["blocks"][3]["shortcut"] = None
    plan, operations = published(write(content))
    assert (plan["widths"], plan["blocks"], plan["strides"]) == ((4, 6, 10), (2, 1, 1), (1, 1, 1))
    assert operations[1] is None


def changed(path, value):
    content = copy.deepcopy(NETWORK)
    *way, last = path
    at = content
    for step in way:
        at = at[step]
    at[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no ProxylessNAS network"),
        ("[]", "no ProxylessNAS network"),
        ({}, "lacks 'first_conv'"),
        (changed(("bn", "eps"), 1e-5), "eps of the norm must be 0.001, got 1e-05"),
        (changed(("first_conv", "kernel_size"), 5), "kernel_size of the first convolution must be 3"),
        (changed(("feature_mix_layer", "in_channels"), 11), "in_channels of the last convolution must be 10"),
        (changed(("classifier", "in_features"), 11), "in_features of the classifier must be 20"),
        (changed(("blocks", 0, "mobile_inverted_conv", "expand_ratio"), 3), "expand_ratio of block 0 must be 1"),
        (changed(("blocks", 3, "mobile_inverted_conv", "in_channels"), 7), "in_channels of block 3 must be 6"),
        (changed(("blocks", 3, "mobile_inverted_conv", "name"), "ConvLayer"), "name of block 3"),
        (changed(("blocks", 3, "shortcut"), None), "a shortcut is there exactly where .* block 3"),
        (changed(("blocks", 2, "shortcut"), None), "block 2 is nothing at all"),
        (changed(("blocks",), []), "no ProxylessNAS network"),
    ],
)
def test_other_networks_are_refused(write, content, message):
    with pytest.raises(DataError, match=message):
        published(write(content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"no network .*/nothing\.json"):
        published(tmp_path / "nothing.json")
