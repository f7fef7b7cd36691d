"""The package as it is imported: light, complete, and with one name for a stage and a function."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
from small_specs import tiny

import sifrc

HEAVY = ("torch", "numba", "sympy", "numpy", "pydantic", "typer", "rich", "matplotlib")


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def test_importing_the_package_imports_no_stage_and_no_heavy_library():
    loaded = run_python(f"import sys, sifrc; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == "[]"


def test_every_public_name_is_there():
    for name in sifrc.__all__:
        assert getattr(sifrc, name) is not None
    assert set(sifrc.__all__) <= set(dir(sifrc))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'complie'"):
        sifrc.complie


def test_all_errors_are_sifrc_errors():
    names = [name for name in sifrc.__all__ if name.endswith("Error")]
    assert len(names) > 5
    assert all(issubclass(getattr(sifrc, name), sifrc.SifrcError) for name in names)


@pytest.mark.parametrize(
    "first",
    ["import sifrc", "import sifrc.verify.ladder", "from sifrc.verify import Report", "import sifrc.api"],
)
def test_verify_is_a_stage_and_a_function_whatever_is_imported_first(first):
    code = f"""
{first}
import sifrc
spec = {{"sifrc": 1, "name": "s", "loss": "mse", "network": {{
    "input": {{"size": 2}}, "layers": [{{"type": "dense", "units": 1}}]}}}}
report = sifrc.verify(spec, levels=(1,))
import sifrc.verify.ladder as ladder
print(report.passed, sifrc.verify.ladder is ladder)
"""
    assert run_python(code) == "True True"


def test_a_spec_is_read_from_a_spec_a_path_and_a_mapping(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "sifrc: 1\nname: tiny\nnetwork: {input: {size: 4}, layers: [{type: dense, units: 2}]}\nloss: mse\n"
    )
    spec = sifrc.load_spec(path)
    assert sifrc.read_spec(spec) is spec
    assert sifrc.read_spec(path) == sifrc.read_spec(str(path)) == spec
    assert sifrc.read_spec(tiny()).name == "tiny"
    with pytest.raises(sifrc.SpecError, match="type int"):
        sifrc.read_spec(3)


def test_options_without_a_method_are_refused():
    for changes, arguments in (({"method": None}, {}), ({}, {"method": "none"})):
        content = {key: value for key, value in tiny(**changes).items() if value is not None}
        with pytest.raises(sifrc.MethodError, match="learning_rate"):
            sifrc.compile(content, **arguments, cache=False, learning_rate=0.1)


def test_curvature_is_chosen_by_name_among_presets_and_the_specs_own():
    from sifrc.api import choose

    own = {"name": "mine", "kind": "pch2", "output": "positive"}
    spec = sifrc.read_spec(tiny(curvature=["ggn", own]))
    assert [kind.name for kind in choose(spec).curvature] == ["ggn", "mine"]
    assert choose(spec, curvature=["mine", "pch1"]) == sifrc.read_spec(tiny(curvature=[own, "pch1"]))
    assert choose(spec, curvature="hessian") == sifrc.read_spec(tiny(curvature=["hessian"]))
    assert choose(spec, curvature=[]) == sifrc.read_spec(tiny())
    for wrong, message in (("mime", "did you mean 'mine'"), (["ggn", "ggn"], "named twice")):
        with pytest.raises(sifrc.MethodError, match=message):
            sifrc.compile(spec, curvature=wrong, cache=False)


def test_a_partition_is_chosen_over_the_specs_own():
    from sifrc.api import choose

    spec = sifrc.read_spec(tiny(partition="trivial"))
    own = {"first": ["fc1"], "rest": "fc2.*"}
    assert choose(spec).partition == spec.partition
    assert choose(spec, partition="canonical") == sifrc.read_spec(tiny())
    assert choose(spec, partition=own) == sifrc.read_spec(tiny(partition=own))
    assert choose(spec, partition=[["fc1"], ("fc2",)]).partition.groups[1][0] == "group2"
    for wrong, message in (("trivail", "did you mean 'trivial'"), ([["fc1"]], "no group has fc2.weight")):
        for cache in (True, False):
            with pytest.raises(sifrc.SpecError, match=message):
                sifrc.compile(spec, partition=wrong, cache=cache)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_module_records_its_partition(backend):
    pytest.importorskip(backend)
    own = {"first": ["fc1.weight", "fc1.bias"], "rest": ["fc2.weight", "fc2.bias"]}
    module = sifrc.compile(tiny(), backend, partition={"rest": "fc2", "first": "fc1"}, cache=False)
    assert module.SPEC["partition"] == own
    text = sifrc.compile_source(tiny(), backend, partition=own)
    assert text == sifrc.compile_source(tiny(partition=own), backend) != sifrc.compile_source(tiny(), backend)
    assert "partition" not in sifrc.compile(tiny(), backend, partition="canonical", cache=False).SPEC


def test_verify_fails_closed_on_a_module_with_a_wrong_gradient():
    """The module's gradient is doubled; level 3 must see it."""
    pytest.importorskip("torch")
    from types import SimpleNamespace

    module = sifrc.compile(tiny(), cache=False)
    assert sifrc.verify(tiny(), levels=(3,), module=module).passed

    def doubled(*arguments):
        return {key: 2 * value for key, value in module.gradient(*arguments).items()}

    wrong = SimpleNamespace(**{**vars(module), "gradient": doubled})
    assert not sifrc.verify(tiny(), levels=(3,), module=wrong).passed


def test_verify_fails_closed_on_a_module_with_a_wrong_block():
    """The module's blocks are doubled; level 3 must see it."""
    pytest.importorskip("torch")
    from types import SimpleNamespace

    spec = tiny(target={"backend": "torch", "operators": ["block_hessian", "curvature_factors"]})
    module = sifrc.compile(spec, cache=False)
    assert sifrc.verify(spec, levels=(3,), module=module).passed

    def doubled(*arguments, **choices):
        found = module.curvature_factors(*arguments, **choices)
        return {name: pair._replace(block=2 * pair.block) for name, pair in found.items()}

    wrong = SimpleNamespace(**{**vars(module), "curvature_factors": doubled})
    report = sifrc.verify(spec, levels=(3,), module=wrong)
    assert not report.passed and {row.quantity for row in report.failures} == {"curvature_factors"}


@pytest.mark.parametrize(
    "levels", ["a", "12", "", (), 2, None, [4], [1, "2"], [True], [[1]], [1.5], b"1"], ids=repr
)
def test_levels_that_are_none_are_said_before_anything_is_compiled(levels, monkeypatch):
    compiling = importlib.import_module("sifrc.api.compiling")
    monkeypatch.setattr(compiling, "compile", lambda *_, **__: pytest.fail("compiled"))
    for spec in (tiny(), None):
        with pytest.raises(sifrc.VerificationError, match="levels: expected some of 1, 2, 3, got"):
            sifrc.verify(spec, levels=levels)


@pytest.mark.parametrize("digits", [19, "50", 50.0, None, True], ids=repr)
def test_digits_that_are_none(digits):
    with pytest.raises(sifrc.VerificationError, match="digits: expected a whole number, at least 20"):
        sifrc.verify(tiny(), levels=(1,), digits=digits)


def test_levels_in_any_iterable():
    report = sifrc.verify(tiny(), levels=iter((np.int64(2), 1, 2)), digits=np.int64(30))
    assert report.passed
    assert [row.level for row in report.rows] == sorted(row.level for row in report.rows)
    assert {row.level for row in report.rows} == {1, 2}
