import json

import pytest

from sartor.exporting.pt2_source import is_formula, is_guard, is_operator, is_structure, is_word, words

CALL = "__import__('os').mkdir('x')"


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Add(Mul(Integer(128), Symbol('s58', positive=True)), Rational(1, 2))", True),
        ("StrictGreaterThan(Symbol('s77'), Integer(3))", True),
        ("FloorDiv(Symbol('s0'), 2) + Float('0.5', precision=53)", True),
        ("2*s0 + 1", True),
        (CALL, False),
        (f"Add('{CALL[:10]}', 1)", False),
        ("Symbol('s', cls='x')", False),
        ("Symbol('s').__class__", False),
        ("exec(1)", False),
        ("sympify(s0)", False),
        ("(lambda: 1)()", False),
        ("[s0 for s0 in s1]", False),
        ("_s0", False),
        ("s0 +", False),
        ("(" * 9000, False),
        ("1+" * 6000 + "1", False),
        (3, False),
    ],
)
def test_formulas_are_arithmetic(text, harmless):
    assert is_formula(text) is harmless


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("L['y'].size()[0] == L['x'].size()[0]", True),
        ("(16*L['x'].size()[1]) != (16*torch.sym_max(1, L['x'].size()[1] // 2))", True),
        ("L['args'][0]['k'].size()[0] >= 2 and not L['n'] == 3", True),
        ("Eq(Mod(L['x'].size()[0], 2), 0)", True),
        ("math.isnan(L['f'])", True),
        ("L['f'] == math.inf", True),
        ("L['x'].stride()[1] <= inf", True),
        (f"{CALL} is None", False),
        (f"L['x'].size({CALL})[0] == 1", False),
        ("L['x'].apply_(print)", False),
        ("L['x'].__class__", False),
        ("L[L['x']].size()[0] == 1", False),
        ("L['a\"b'].size()[0] == 1", False),
        ("M['x'].size()[0] == 1", False),
        ("torch.load('x')", False),
        ("torch.os.system(1)", False),
        ("L['x'].size()[0] == 1 # remark", False),
        ("L['x'].size()[0] == \\n1", False),
        ("L['x'].size()[0] == 'one'", False),
        ("L['x'].size(key=1)[0] == 1", False),
        ("L['x'].size()[0] ==", False),
        (None, False),
    ],
)
def test_guards_compare_sizes_of_inputs(text, harmless):
    assert is_guard(text) is harmless


@pytest.mark.parametrize(
    ("target", "harmless"),
    [
        ("torch.ops.aten.conv2d.default", True),
        ("torch.ops.higher_order.cond", True),
        ("_operator.getitem", True),
        ("math.ceil", True),
        ("torch.sym_max", True),
        ("torch._sym_sqrt", True),
        ("torch.ops.load_library", False),
        ("torch.ops.load_library.x", False),
        ("torch.ops.aten.from_file.default", False),
        ("torch.os.system", False),
        ("torch.hub.load", False),
        ("torch.sym_max.__globals__", False),
        ("_operator.attrgetter", False),
        ("_operator.call", False),
        ("math.os.system", False),
        ("#own:op", False),
    ],
)
def test_nodes_call_operators(target, harmless):
    assert is_operator(target) is harmless


def test_structures_import_nothing():
    def spec(kind, context):
        return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])

    assert is_structure(spec("builtins.dict", '["a", "b/c d"]'))
    assert is_structure(spec(None, None))
    hidden = json.dumps([{"__enum__": True, "fqn": "evil:A", "name": "a"}]).replace("_", "\\u005f")
    for wrong in (
        spec("builtins.dict", hidden),
        spec("collections.defaultdict", "{}"),
        spec("builtins.dict", json.dumps(["a'b"])),
        spec("builtins.dict", "[" * 100_000),
        "[]",
        "no",
        None,
    ):
        assert not is_structure(wrong)


def test_words_cannot_end_a_string_and_names_are_names():
    model = {
        "name": "x",
        "as_string": "bij,bjk->bik",
        "metadata": {"stack_trace": 'File "a.py"'},
        "list": [{"fqn": "a.0"}],
    }
    found = list(words(model, ""))
    assert ("name", "x") in found
    assert ("fqn", "a.0") in found
    assert ("", "metadata") in found
    assert not [text for _, text in found if "File" in text]
    assert all(is_word(key, text) for key, text in found)
    assert is_word("name", "")
    assert is_word("expr_str", "Symbol('s')")  # looked at apart
    for key, text in (
        ("name", "a b"),
        ("name", "x=1"),
        ("fqn", 'a"b'),
        ("fqn", "a\\b"),
        ("as_string", "a\nb"),
        ("", "a'b"),
    ):
        assert not is_word(key, text)
