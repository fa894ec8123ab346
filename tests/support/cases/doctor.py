"""What the doctor found, and programs for it to find."""

import os
import subprocess
import sys

from places import ROOT, python_path

from cornernet_runtime.doctor import diagnose


def facts():
    return {fact.key: fact for fact in diagnose().facts}


def fact_of(report, key):
    (fact,) = (fact for fact in report.facts if fact.key == key)
    return fact


def run_doctor(*arguments, **environment):
    code = "import sys; from cornernet_runtime.cli.doctor import main; sys.exit(main(sys.argv[1:]))"
    return run_python(code, *arguments, **environment)


def run_python(code, *arguments, **environment):
    """Run ``code`` in a fresh interpreter, with colours and columns not decided by whoever runs the tests."""
    inherited = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS"}}
    return subprocess.run(  # noqa: S603 - the code is this file's own
        [sys.executable, "-c", code, *arguments],
        env={**inherited, "PYTHONPATH": python_path(ROOT / "runtime"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
