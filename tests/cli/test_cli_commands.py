"""The commands: what they print, what they write, and their exit codes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from sampled import one_in
from small_specs import tiny
from typer.testing import CliRunner

import sifrc
from sifrc.cli.main import app

pytestmark = pytest.mark.usefixtures("no_pictures")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMANDS = ("new", "check", "equations", "compile", "verify", "train")


@pytest.fixture
def sifrc_command(tmp_path, monkeypatch):
    """Runs a command in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIFRC_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def write(tmp_path):
    """Writes a spec and gives its path."""

    def write(content, name="spec.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def without_trace(result):
    return "Traceback" not in result.output and (
        result.exception is None or isinstance(result.exception, SystemExit)
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(sifrc_command, command):
    result = sifrc_command(command, "--help")
    assert result.exit_code == 0 and f"Example: sifrc {command}" in result.output


@pytest.mark.parametrize("arguments", [["-m", "sifrc", "--help"], ["-m", "sifrc", "--version"]])
def test_python_m_sifrc_is_the_command(arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "sifrc" in done.stdout


def test_help_loads_no_stage():
    code = (
        "import sys; from typer.testing import CliRunner; from sifrc.cli.main import app\n"
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'numba', 'sympy', 'numpy', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["check"],
        ["check", "--nosuch", "x.yaml"],
        ["compile", "x.yaml"],
        ["compile", "x.yaml", "-o", "out", "--option", "novalue"],
        ["compile", "x.yaml", "-o", "out", "--option", "a=1", "--option", "a=2"],
        ["verify", "x.yaml", "--levels", "4"],
        ["verify", "x.yaml", "--levels", ""],
        ["verify", "x.yaml", "--digits", "5"],
        ["train", "x.yaml", "--epochs", "0"],
        ["train", "x.yaml", "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(sifrc_command, arguments):
    result = sifrc_command(*arguments)
    assert result.exit_code == 2 and without_trace(result)


@pytest.mark.parametrize(
    "command", [["check"], ["equations"], ["compile", "-o", "out"], ["verify"], ["train"]]
)
def test_a_wrong_spec_is_a_diagnostic_and_exit_code_1(sifrc_command, write, command):
    text = (EXAMPLES / "digits.yaml").read_text().replace("cross_entropy", "cros_entropy")
    path = write(text)
    result = sifrc_command(command[0], path, *command[1:])
    assert result.exit_code == 1 and without_trace(result)
    assert "cross_entropy" in result.stderr and f"{path}:" in result.stderr and "^" in result.stderr
    assert result.stdout == "" and not Path("out").exists()


def test_a_missing_file_is_exit_code_1(sifrc_command):
    result = sifrc_command("check", "no.yaml")
    assert result.exit_code == 1 and "cannot read spec" in result.stderr


def test_an_unexpected_exception_says_that_it_is_a_bug(tmp_path):
    code = (
        "import sys, sifrc.api\n"
        "def broken(source): raise ZeroDivisionError('inside')\n"
        "sifrc.api.read_spec = broken\n"
        "sys.argv = ['sifrc', 'check', 'x.yaml']\n"
        "from sifrc.cli.main import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, 1, 2)
    assert "Traceback" in done.stderr and "ZeroDivisionError: inside" in done.stderr
    assert "This is a bug in sifrc" in done.stderr


@pytest.mark.parametrize("data", ["digits", "mnist", "fashion_mnist", "curves"])
def test_new_writes_a_spec_that_is_right(sifrc_command, data):
    result = sifrc_command("new", "mine", "--data", data)
    assert result.exit_code == 0
    spec = sifrc.load_spec("mine.yaml")
    assert (spec.name, spec.training.data) == ("mine", data)
    assert spec.input.size == (64 if data == "digits" else 784)
    assert spec.layers[-1].size == (784 if data == "curves" else 10)


def test_new_takes_the_sizes_of_an_archive(sifrc_command, tmp_path):
    x, y = np.zeros((4, 7)), np.array([0, 1, 2, 2])
    np.savez(tmp_path / "a b.npz", train_X=x, train_y=y, test_X=x, test_y=y)
    assert sifrc_command("new", "mine", "--data", tmp_path / "a b.npz").exit_code == 0
    spec = sifrc.load_spec("mine.yaml")
    assert (spec.input.size, spec.layers[-1].size) == (7, 3)
    assert spec.training.data == str(tmp_path / "a b.npz")


def test_new_does_not_replace_a_file_unless_forced(sifrc_command):
    Path("a.yaml").write_text("mine")
    result = sifrc_command("new", "name", "-o", "a.yaml")
    assert result.exit_code == 1 and "--force" in result.stderr and Path("a.yaml").read_text() == "mine"
    assert sifrc_command("new", "name", "-o", "a.yaml", "--force").exit_code == 0
    assert sifrc.load_spec("a.yaml").name == "name"


@pytest.mark.parametrize("name", ["lambda", "a-b", "", "../x"])
def test_new_refuses_a_bad_name_and_writes_nothing(sifrc_command, tmp_path, name):
    result = sifrc_command("new", name)
    assert result.exit_code == 1 and without_trace(result) and not list(tmp_path.iterdir())


def test_new_refuses_unknown_data(sifrc_command):
    result = sifrc_command("new", "mine", "--data", "imagenet")
    assert result.exit_code == 1 and "digits" in result.stderr


def test_check_lists_states_and_parameters(sifrc_command, write):
    """4·3 + 3 and 3·2 + 2 parameters, counted by hand."""
    result = sifrc_command("check", write(tiny()))
    assert result.exit_code == 0, result.output
    assert "23 parameters" in result.stdout and "2 states" in result.stdout
    first = next(line for line in result.stdout.splitlines() if line.startswith("x1"))
    assert first.split() == ["x1", "fc1", "image", "3", "tanh", "15", "0.001"]


def test_check_says_why_something_is_impossible(sifrc_command, write):
    """A skip connection: no closed-form Newton direction, but products."""
    content = tiny(
        method={"name": "mk"}, target={"backend": "torch", "operators": ["hessian_vector_product"]}
    )
    layers = content["network"]["layers"]
    layers.insert(1, {"name": "fc1b", "type": "dense", "units": 3})
    layers.insert(2, {"name": "both", "type": "add", "inputs": ["fc1", "fc1b"]})
    del content["method"]
    result = sifrc_command("check", write(content))
    rows = {
        line.split()[1]: line
        for line in result.stdout.splitlines()
        if line.startswith(("operator", "method"))
    }
    assert result.exit_code == 0, result.output
    assert rows["hessian_vector_product"].split()[2:] == ["yes", "yes"]
    assert rows["newton_direction"].split()[2] == "no" and "skip connection" in rows["newton_direction"]
    assert rows["mk"].split()[2] == "no"


def test_check_fails_where_what_is_requested_is_impossible(sifrc_command, write):
    content = tiny(target={"backend": "torch", "operators": ["newton_direction"]})
    content["network"]["layers"][0]["activation"] = "relu"
    result = sifrc_command("check", write(content))
    assert result.exit_code == 1 and "flat on an interval" in result.stderr and without_trace(result)


def deep(count):
    """A chain as the file has it."""
    lines = [
        f"    - {{name: fc{k}, type: dense, units: {3 + k % 7}, activation: tanh}}" for k in range(count)
    ]
    start = "sifrc: 1\nname: deep\nnetwork:\n  input: {name: image, size: 4}\n  layers:\n"
    return start + "\n".join(lines) + "\nloss: squared_error\nregularization: {state: 0.1}\n"


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_check_of_a_deep_network(sifrc_command, write, count):
    """What can be derived does not depend on the depth, and neither does the time that it takes to say so."""
    begin = time.process_time()
    result = sifrc_command("check", write(deep(count)))
    assert result.exit_code == 0, result.output
    assert f"{count:,} layers, {count:,} states" in result.stdout
    assert " more like these" in result.stdout and len(result.stdout.splitlines()) < 100
    assert f"y[k] ≠ 0, k = 1..{count}" in result.stdout
    assert time.process_time() - begin < 60


@pytest.mark.parametrize(
    ("target", "dtype", "message"),
    [
        ({"backend": "troch"}, "float64", "torch"),
        ({"backend": "torch", "operators": ["hesian"]}, "float64", "hesian"),
        ({"backend": "torch", "options": {"spam": 1}}, "float64", "spam"),
        ({"backend": "numba"}, "bfloat16", "bfloat16"),
    ],
)
def test_check_refuses_targets_that_do_not_exist(sifrc_command, write, target, dtype, message):
    result = sifrc_command("check", write(tiny(target=target, dtype=dtype)))
    assert result.exit_code == 1 and message in result.stderr and without_trace(result)


@pytest.mark.parametrize("example", one_in(3, sorted(EXAMPLES.glob("*.yaml"))), ids=lambda path: path.stem)
def test_examples_are_right(sifrc_command, example):
    result = sifrc_command("check", example)
    assert result.exit_code == 0, result.output
    assert sifrc.load_spec(example).name == example.stem


def test_equations_go_to_the_terminal_or_a_file(sifrc_command, write):
    pytest.importorskip("sifrc.report.document")
    path = write(tiny())
    shown = sifrc_command("equations", path)
    assert shown.exit_code == 0 and "ESN(" in shown.stdout, shown.output
    written = sifrc_command("equations", path, "--latex", "-o", "eq.tex")
    assert written.exit_code == 0 and "\\" in Path("eq.tex").read_text()
    without = sifrc_command("equations", path, "--no-newton")
    assert without.exit_code == 0 and len(without.stdout) < len(shown.stdout)
    summaries = sifrc_command("equations", path, "--summaries")
    assert summaries.exit_code == 0 and "GN3(9)" in summaries.stdout and "GN3(9)" not in shown.stdout


def test_compile_writes_one_file_and_nothing_else(sifrc_command, write, tmp_path):
    path = write(tiny())
    result = sifrc_command("compile", path, "-o", "out")
    assert result.exit_code == 0, result.output
    assert [p.name for p in Path("out").iterdir()] == ["tiny_mk_torch.py"]
    assert Path("out/tiny_mk_torch.py").read_text() == sifrc.compile_source(tiny())
    assert "out/tiny_mk_torch.py" in result.stdout and " s" in result.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "spec.yaml"]


def test_compile_takes_choices_over_the_spec(sifrc_command, write):
    path = write(tiny())
    arguments = ("--method", "esn", "--operators", "loss,linearize", "--option", "variant=exact")
    assert sifrc_command("compile", path, "-o", "out", *arguments).exit_code == 0
    text = Path("out/tiny_esn_torch.py").read_text()
    assert text == sifrc.compile_source(tiny(), None, "esn", ("loss", "linearize"), variant="exact")
    assert sifrc_command("compile", path, "-o", "out", "--method", "none").exit_code == 0
    assert Path("out/tiny_operators_torch.py").is_file()


def test_compile_takes_a_partition(sifrc_command, write):
    path = write(tiny(partition={"a": "*.weight", "b": "*.bias"}))
    assert sifrc_command("compile", path, "-o", "out", "--partition", "blocks-1").exit_code == 0
    text = Path("out/tiny_mk_torch.py").read_text()
    assert text == sifrc.compile_source(tiny(partition="blocks-1")) != sifrc.compile_source(path)


def test_compile_takes_kinds_of_curvature(sifrc_command, write):
    own = {"name": "mine", "kind": "pch2", "output": "positive"}
    path = write(tiny(curvature=["ggn", own]))
    assert sifrc_command("compile", path, "-o", "out", "--curvature", "mine, hessian").exit_code == 0
    text = Path("out/tiny_mk_torch.py").read_text()
    assert text == sifrc.compile_source(tiny(curvature=[own, "hessian"])) != sifrc.compile_source(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--option", "dampign=1"],
        ["--option", "damping=much"],
        ["--option", "backend.spam=1"],
        ["--method", "newton"],
        ["--backend", "fortran"],
        ["--operators", "hessian"],
        ["--curvature", "hesian"],
        ["--partition", "blocks-7"],
        ["--partition", "canonicl"],
        ["--method", "none", "--option", "damping=1"],
    ],
    ids=" ".join,
)
def test_compile_refuses_choices_that_do_not_exist(sifrc_command, write, arguments):
    result = sifrc_command("compile", write(tiny()), "-o", "out", *arguments)
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and without_trace(result)
    assert not Path("out").exists()


METHOD = {"name": "ea_cg", "alpha": 0.1, "kind": "pch1"}
TARGET = {"backend": "torch", "options": {"check_forward": True}}


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("alhpa=1", "did you mean 'alpha'?"),
        ("alpha=much", "option 'alpha' is a number"),
        ("momentum=7", "option 'momentum' is 7"),
        ("kind=pch7", "unknown kind of curvature 'pch7'"),
        ("solver=kfi kind=hessian", "kind 'hessian' is indefinite"),
        ("backend.check_forward=3", "of backend 'torch' is 3"),
        ("backend.spam=1", "has no option 'spam'"),
    ],
)
@pytest.mark.parametrize("command", ["compile", "train"])
def test_an_option_of_the_command_line_is_blamed_itself(sifrc_command, write, command, option, reason):
    """Not the line of the spec that it replaces, nor that of the method."""
    options = [part for text in option.split() for part in ("--option", text)]
    more = ["-o", "out"] if command == "compile" else ["--data", "digits"]
    network = {
        "input": {"size": 64},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 10},
        ],
    }
    spec = write(tiny(network=network, method=METHOD, target=TARGET, loss="cross_entropy"))
    result = sifrc_command(command, spec, *more, *options)
    blamed = option.split()[-1]
    assert result.exit_code == 1 and reason in result.stderr, result.stderr
    assert "--> command line:1:10" in result.stderr and f"--option {blamed}" in result.stderr
    assert re.search(rf"\| {' ' * 9}\^{{{len(blamed)}}}(?!\^)", result.stderr)
    assert "spec.yaml" not in result.stderr


def test_a_backend_of_the_command_line_is_not_blamed_on_the_spec(sifrc_command, write):
    result = sifrc_command("compile", write(tiny(target=TARGET)), "-o", "out", "--backend", "fortran")
    assert result.exit_code == 1 and "unknown backend 'fortran'" in result.stderr
    assert "spec.yaml" not in result.stderr


def test_an_option_of_the_spec_is_blamed_there(sifrc_command, write):
    """Also where another one is given on the command line."""
    spec = write(tiny(method={**METHOD, "alpha": 7}, loss="cross_entropy"))
    result = sifrc_command("compile", spec, "-o", "out", "--option", "momentum=0.5")
    assert result.exit_code == 1 and "spec.yaml:" in result.stderr and "alpha: 7" in result.stderr


def test_compile_into_a_file_is_an_error(sifrc_command, write):
    Path("out").write_text("mine")
    result = sifrc_command("compile", write(tiny()), "-o", "out")
    assert result.exit_code == 1 and "cannot write" in result.stderr and Path("out").read_text() == "mine"


def test_verify_prints_a_table_and_passes(sifrc_command, write):
    result = sifrc_command("verify", write(tiny()), "--levels", "1,2", "--digits", "30")
    assert result.exit_code == 0, result.output
    assert "gradient" in result.stdout and "tiny: passed" in result.stdout


def test_verify_lists_operators_on_curvature_blocks_that_are_asked_for(sifrc_command, write):
    target = {"backend": "torch", "operators": ["block_hessian", "hessian_diagonal"]}
    spec = write(tiny(method="none", target=target, curvature=["hessian", "pch1"]))
    result = sifrc_command("verify", spec, "--levels", "1,2", "--digits", "30")
    assert result.exit_code == 0, result.output
    assert "block_hessian" in result.stdout and "hessian_diagonal" in result.stdout
    assert "curvature_factors" not in result.stdout


def test_verify_looks_at_summaries_that_are_asked_for(sifrc_command, write):
    spec = write(tiny())
    result = sifrc_command("verify", spec, "--levels", "1", "--summaries")
    assert result.exit_code == 0 and "summary" in result.stdout, result.output
    without = sifrc_command("verify", spec, "--levels", "1", "--no-summaries")
    assert without.exit_code == 0 and "summary" not in without.stdout, without.output


def test_verify_exits_with_1_where_something_was_not_checked(sifrc_command, write, monkeypatch):
    from sifrc.verify import Report, Row, ladder

    row = Row("gradient", 1, "oracle", None, None, None, "not reached")
    monkeypatch.setattr(ladder, "verify", lambda *a, **k: Report("tiny", (row,), (("gradient", 1),)))
    result = sifrc_command("verify", write(tiny()), "--levels", "1")
    assert result.exit_code == 1 and "not checked" in result.stdout and "gradient at level 1" in result.stderr


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 300)
    x = 0.5 * rng.standard_normal((300, 4)) + np.where(labels, 1.0, -1.0)[:, None]
    path = tmp_path / "two.npz"
    np.savez(path, train_X=x[:240], train_y=labels[:240], test_X=x[240:], test_y=labels[240:])
    return path


def test_train_prints_metrics_and_says_where_the_files_are(sifrc_command, write, archive):
    path = write(tiny())
    result = sifrc_command("train", path, "--data", archive, "--epochs", 2, "--batch", 10)
    assert result.exit_code == 0, result.output
    assert "test accuracy" in result.stdout and Path("runs/tiny/metrics.csv").is_file()
    for name in ("metrics.csv", "checkpoint.npz"):
        assert f"wrote {Path('runs/tiny') / name}" in result.stdout
    more = sifrc_command("train", path, "--data", archive, "--epochs", 3, "--batch", 10, "--resume")
    assert more.exit_code == 0, more.output
    assert len(Path("runs/tiny/metrics.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "checkpoint"),
        (["--data", "nosuch"], "unknown data set"),
        (["--data", "digits"], "64"),
        (["--method", "none"], "needs a method"),
    ],
    ids=str,
)
def test_train_refuses_what_it_cannot_do(sifrc_command, write, archive, arguments, message):
    data = [] if "--data" in arguments else ["--data", archive]
    result = sifrc_command("train", write(tiny()), *data, *arguments)
    assert result.exit_code == 1 and message in result.stderr and without_trace(result)


def test_ctrl_c_saves_and_the_run_goes_on_with_resume(write, archive, tmp_path):
    """A real signal to a real process, once its first checkpoint is there."""
    path = write(tiny())
    run = tmp_path / "run"
    command = [sys.executable, "-m", "sifrc", "train", str(path), "--data", str(archive), "-o", str(run)]
    environment = {**os.environ, "SIFRC_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [*command, "--epochs", "100000"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        until = time.monotonic() + 60
        while not (run / "checkpoint.npz").is_file() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert "interrupted in epoch" in errors and "resume" in errors
    epochs = len((run / "metrics.csv").read_text().splitlines()) - 2
    resumed = subprocess.run(
        [*command, "--epochs", str(epochs + 1), "--resume"], env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr


def test_ctrl_c_prints_how_far_training_is(sifrc_command, write, archive, monkeypatch):
    import sifrc.training

    def stopped(*arguments, **settings):
        raise sifrc.training.TrainingInterrupted("interrupted in epoch 1; a run with resume goes on")

    monkeypatch.setattr(sifrc.training, "train", stopped)
    result = sifrc_command("train", write(tiny()), "--data", archive)
    assert result.exit_code == 130 and "interrupted in epoch 1" in result.stderr and without_trace(result)


@pytest.mark.parametrize("cause", [RuntimeError("of a module"), MemoryError()])
def test_what_stops_a_run_unexpectedly_is_shown(sifrc_command, write, archive, monkeypatch, cause):
    """Somebody's bug comes with the way to it; what happens to runs, as a lack of memory, does not."""
    import sifrc.training

    def stopped(*arguments, **settings):
        raise sifrc.TrainingError("training stopped in epoch 1", hint="saved in checkpoint.npz") from cause

    monkeypatch.setattr(sifrc.training, "train", stopped)
    result = sifrc_command("train", write(tiny()), "--data", archive)
    assert result.exit_code == 1 and "training stopped in epoch 1" in result.stderr
    assert ("RuntimeError: of a module" in result.stderr) == isinstance(cause, RuntimeError)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "often"])
def test_times_between_checkpoints_that_are_none(sifrc_command, write, value):
    result = sifrc_command("train", write(tiny()), "--checkpoint-every", value)
    assert result.exit_code == 2 and "or never" in result.stderr and without_trace(result)


def test_start_takes_the_parameters_of_another_run(sifrc_command, write, archive, tmp_path):
    """With another rate, which a resumed run may not have."""
    from sifrc.training.checkpoint import load_checkpoint

    path, data = write(tiny()), ("--data", archive, "--epochs", 1, "--batch", 20)
    other = ("--checkpoint-every", "never", "--option", "learning_rate=0.01")
    assert sifrc_command("train", path, *data, "-o", tmp_path / "a").exit_code == 0
    result = sifrc_command("train", path, *data, "-o", tmp_path / "b", "--start", tmp_path / "a", *other)
    assert result.exit_code == 0, result.output
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.npz").history.rows for name in "ab")
    assert a[-1].test_loss == b[0].test_loss and len(b) == 2
    result = sifrc_command("train", path, *data, "--resume", "--start", tmp_path / "a")
    assert result.exit_code == 2 and "not together with --resume" in result.stderr
    result = sifrc_command("train", path, *data, "--start", tmp_path / "none")
    assert result.exit_code == 1 and "no checkpoint" in result.stderr and without_trace(result)


def test_output_to_a_closed_pipe_is_no_bug(write):
    """`sifrc check SPEC | head -0` must not end in a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sifrc", "check", str(write(tiny()))]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert "This is a bug" not in done.stderr
