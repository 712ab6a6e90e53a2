"""CROP_PYTHON: every script of launch/ runs with that interpreter, makes no .venv and installs nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration

# Writes down how it was called; stands beside its commands, as a container's python does.
PRETENDED = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$(dirname "$0")/calls"
case "$*" in
*sysconfig*) dirname "$0" ;;
*device_count*) echo 0 ;;
esac
"""
COMMAND = '#!/usr/bin/env bash\nprintf \'%s\\n\' "$(basename "$0") $*" >>"$(dirname "$0")/calls"\n'
SLURM = {"srun": '"$@"\n', "scontrol": "echo 127.0.0.1\n"}
CONFIG = "configs/plc/quickstart.yaml"
LAUNCHER = "-m deepspeed.launcher.runner"
CALLS = {
    "install.sh": ([], []),
    "train.sh": ([CONFIG], [f"{LAUNCHER} --num_gpus 2 --master_port 29500 --module train.plc {CONFIG}"]),
    "multi_node.sh": (
        [CONFIG],
        [f"{LAUNCHER} --hostfile ", "hosts --no_ssh --node_rank 0 --master_addr 127.0.0.1 --master_port 29500 "],
    ),
    "slurm.sbatch": (
        [CONFIG],
        [f"{LAUNCHER} --hostfile ", "--node_rank 0 --master_addr 127.0.0.1 --master_port 20012 "],
    ),
    "quickstart.sh": (
        [],
        [
            "-m data_prep.demo ",
            f"{LAUNCHER} --num_gpus 2 ",
            "-m train.evaluate ",
            "-m train.export ",
            "-m train.answer ",
        ],
    ),
    "test.sh": (
        [],
        ["ruff format ", "mypy", "lint-imports", "shellcheck -x ", "hadolint ", "pymarkdown ", "-m pytest tests "],
    ),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the scripts need of the project."""
    shutil.copytree(ROOT / "launch", tmp_path / "checkout" / "launch")
    for name in ("pyproject.toml", "setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / "checkout")
    return tmp_path / "checkout"


def call(checkout: Path, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], **variables}
    command = ["bash", f"launch/{script}", *words]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("script", CALLS)
def test_every_script_runs_with_the_interpreter_that_the_variable_names(script: str, checkout: Path) -> None:
    bin_folder = checkout.with_name("bin")
    bin_folder.mkdir()
    commands = dict.fromkeys(
        ("ruff", "mypy", "lint-imports", "shellcheck", "hadolint", "pymarkdown", "pip", "deepspeed"), COMMAND
    )
    commands |= {name: f"#!/usr/bin/env bash\n{text}" for name, text in SLURM.items()}
    for name, text in {"python3": PRETENDED, **commands}.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    (checkout / "hosts").write_text("127.0.0.1 slots=1\n")
    words, expected = CALLS[script]
    variables = {"CROP_PYTHON": str(bin_folder / "python3"), "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    if script == "multi_node.sh":
        variables |= {"HOSTFILE": "hosts", "NODE_RANK": "0"}
    if script == "slurm.sbatch":
        variables |= {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_NODELIST": "node0", "SLURM_JOB_NUM_NODES": "1"}
        variables |= {"SLURM_JOB_ID": "12", "SLURM_NODEID": "0"}
    before = sorted(path.name for path in checkout.iterdir())
    done = call(checkout, script, *words, **variables)
    assert done.returncode == 0, done.stderr
    calls = (bin_folder / "calls").read_text().splitlines()
    for line in expected:
        assert any(line in called for called in calls), calls
    checked = [line for line in calls if line.startswith("launch/check_packages.py")]
    extra = {"quickstart.sh": " demo", "test.sh": " test"}.get(script, "")
    assert checked[0] == f"launch/check_packages.py{extra}"
    assert not [line for line in calls if line.startswith(("pip ", "-m pip", "-m venv", "deepspeed "))]
    assert sorted(path.name for path in checkout.iterdir()) == before  # so no .venv


def test_a_missing_package_is_one_line_that_says_what_to_install(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    project.write_text(
        project.read_text()
        .replace('    "peft>=0.19",\n', '    "peft>=99.5",\n    "no-package-of-this-name>=2",\n')
        .replace('"scikit-learn>=1.5"', '"nor-this-one"')
    )
    refused = call(checkout, "train.sh", CONFIG, CROP_PYTHON=sys.executable)
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"install.sh: error: CROP_PYTHON={sys.executable} lacks peft>=99.5 (has ")
    assert line.endswith(f"), no-package-of-this-name>=2: {sys.executable} -m pip install 'peft>=99.5' "
                         "'no-package-of-this-name>=2'")  # fmt: skip
    refused = call(checkout, "quickstart.sh", CROP_PYTHON=sys.executable)
    assert refused.returncode == 2
    assert "no-package-of-this-name>=2, nor-this-one: " in refused.stderr


def test_an_interpreter_that_is_none_is_one_line(checkout: Path) -> None:
    refused = call(checkout, "train.sh", CONFIG, CROP_PYTHON="/bin/false")
    assert refused.returncode == 2
    assert refused.stderr == (
        "install.sh: error: needs Python 3.11 or newer, /bin/false is older or no Python; set CROP_PYTHON=\n"
    )
